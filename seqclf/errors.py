"""The exceptions of seqclf. This module imports nothing, so that ``--help`` needs no PyTorch."""


class SeqclfError(Exception):
    """A user error: a wrong setting, argument or file. The message is one line; the program prints it and exits 2."""


class PeerFailed(SeqclfError):
    """Another process of the run failed and reports the error; this process ends without a message."""
