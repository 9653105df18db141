"""Caffe's solver: trains a net by an update rule and a learning rate, tests it, and saves and resumes (solver.cpp)."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seqclf.caffe.error import CaffeFormatError, within
from seqclf.caffe.formats.schema import Flavour
from seqclf.caffe.nets.load import build_net
from seqclf.caffe.nets.net import Net
from seqclf.caffe.nets.save import save_net
from seqclf.caffe.nets.threads import suitable_threads
from seqclf.caffe.policies import policy
from seqclf.caffe.solvers import snapshot, update_rules
from seqclf.caffe.solvers.nets import find, find_named, test_nets, train_net

Feed = Mapping[str, Any] | Callable[[int], Mapping[str, Any]] | None
"""Values for a net's ``Input`` layers: a dict for all forward passes, or a function of the pass's number (from 0)."""
Stop = Callable[[], str | None] | None


class Solver:
    """Trains a net like Caffe's solver.

    Args:
        param: a ``SolverParameter``, in today's form.
        file: its file, for errors and for relative paths in it.
        flavour: "bvlc" or "lisa".
        device: the device of the nets.
        python: replacements for ``Python`` layers, by the layer's class name.
        log: called with each line that Caffe would log; None for silence.

    Attributes:
        net: the train net.
        test_nets: the nets that are tested; they share the train net's parameters.
        optimizer: an optimizer of ``seqclf.caffe``, such as ``SGD``.
        iter: the number of updates so far.
        feed: the train net's inputs; None if its data layers provide everything. Test nets take ``test_feed``.
        loss: the loss of the last iteration, before its update.
    """

    def __init__(
        self,
        param: Any,
        file: str = "solver",
        flavour: Flavour = "bvlc",
        device: str | torch.device = "cpu",
        python: Mapping[str, Callable[..., Any]] | None = None,
        log: Callable[[str], None] | None = None,
    ) -> None:
        self.param, self.file, self.flavour = param, file, flavour
        self.log = log or (lambda line: None)
        self.device = torch.device(device)
        self.feed: Feed = None
        self.test_feed: Feed = None
        self.iter = self.passes = self._last_shown = 0
        self.loss = float("nan")
        for field in ("iter_size", "average_loss"):
            if getattr(param, field) < 1:
                raise CaffeFormatError(f"{file}: field {field}: is {getattr(param, field)}, expected at least 1")
        self._recent: deque[float] = deque(maxlen=param.average_loss)
        if param.random_seed >= 0:
            torch.manual_seed(param.random_seed)
        self.net = train_net(param, file, flavour, python, self.build_net)
        for path in (path for entry in param.weights for path in entry.split(",")):
            self.load_weights(find_named("weights", path, file))
        self.net.to(self.device)
        self.test_nets = [net.to(self.device) for net in test_nets(param, file, flavour, python, self.build_net)]
        for net in self.test_nets:
            net.share(self.net)
        groups = [{"params": [p], "lr_mult": lr, "decay_mult": decay} for p, lr, decay in self.net.multipliers]
        with within(file):
            self.rate = policy(param)
            self.optimizer = update_rules.from_solver(param, groups, flavour)
        self._threads_logged = False

    def build_net(self, message: Any, file: str, phase: str, state: Any, python: Any, problems: list[str]) -> Net:
        """Builds the train net or a test net, initialized by its fillers."""
        stages = tuple(state.stage)
        return build_net(message, file, None, phase, self.flavour, state.level, stages, python, problems=problems)

    def load_weights(self, path: str | Path) -> None:
        """Loads trained parameters into layers of the same name, and logs the layers that do not match."""
        self.log(f"Finetuning from {path}")
        missing, unread = self.net.load_weights(find(str(path), self.file), strict=False)
        for name in unread:
            self.log(f"Ignoring source layer {name}")
        for name in missing:
            self.log(f"No weights for layer {name}: drawn by its fillers")

    # ---- training

    def step(self, iterations: int, stop: Stop = None) -> bool:
        """Makes updates, with the tests, log lines and snapshots that the solver's settings ask for (Solver::Step).

        A small net computes with one thread; PyTorch's number of threads is restored at the end.

        Args:
            iterations: the number of updates.
            stop: called after every update; "stop" ends the run there, "snapshot" takes a snapshot.

        Returns:
            whether ``stop`` ended the run.

        Raises:
            CaffeFormatError: a net can't take its data.
        """
        if self.iter + iterations >= 2**31:
            raise CaffeFormatError(
                f"{self.file}: {iterations} iterations from {self.iter} on: Caffe counts to 2**31 - 1"
            )
        self._recent.clear()  # average_loss averages within one call, as in Caffe
        self._timer, self._last_shown = time.perf_counter(), self.iter
        available = torch.get_num_threads()
        with suitable_threads(self.net) as threads:
            if threads < available and not self._threads_logged:
                self.log(f"The net is small: computing with 1 thread instead of {available}")
                self._threads_logged = True
            for _ in range(iterations):
                if self._iterate(stop):
                    return True
        return False

    def _iterate(self, stop: Stop) -> bool:
        p = self.param
        if p.test_interval and self.iter % p.test_interval == 0 and (self.iter > 0 or p.test_initialization):
            self.test()
        outputs = self._forward_backward()
        self._recent.append(self.loss)
        with within(self.file):
            rate = self.rate(self.iter)
        if p.display and self.iter % p.display == 0:
            self._display(outputs, rate)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.iter += 1
        request = stop() if stop is not None else None
        if request == "snapshot" or (p.snapshot and self.iter % p.snapshot == 0):
            self.snapshot()
        return request == "stop"

    def _forward_backward(self) -> dict[str, Tensor]:
        """Sums the gradients of ``iter_size`` passes, sets ``loss``, and returns the outputs of the last pass."""
        for p in self.net.parameters():
            p.grad = None  # optimizer.zero_grad() would import torch._dynamo
        losses = []
        for _ in range(self.param.iter_size):
            blobs = self.net.compute(self._inputs(self.net, self.feed, self.passes), keep=self._shown(self.net))
            self.passes += 1
            loss = self.net.loss(blobs)
            if loss.requires_grad:
                loss.backward()
            losses.append(loss.detach())
        self.loss = float(sum(losses[1:], losses[0])) / self.param.iter_size
        return {name: blobs[name].detach() for name in self.net.outputs}

    def solve(self, stop: Stop = None) -> None:
        """Trains to ``max_iter``, with the snapshot, log line and test that Caffe adds at the end (Solver::Solve)."""
        p = self.param
        self.log(f"Solving {self.net.message.name}")
        self.log(f"Learning Rate Policy: {p.lr_policy}")
        stopped = self.step(max(0, p.max_iter - self.iter), stop)
        if p.snapshot_after_train and not (p.snapshot and self.iter % p.snapshot == 0):
            self.snapshot()
        if stopped:
            self.log("Optimization stopped early.")
            return
        if p.display and self.iter % p.display == 0:
            with torch.no_grad():
                blobs = self.net.compute(self._inputs(self.net, self.feed, self.passes), keep=self._shown(self.net))
            newest = float(self.net.loss(blobs))
            self._recent.append(newest)
            self.log(f"Iteration {self.iter}, loss = {newest if self.flavour == 'lisa' else self._mean_loss():.6g}")
        if p.test_interval and self.iter % p.test_interval == 0:
            self.test()
        self.log("Optimization Done.")

    def _mean_loss(self) -> float:
        return sum(self._recent) / len(self._recent)

    def _display(self, outputs: Mapping[str, Tensor], rate: float) -> None:
        """Logs an iteration. The speed is at the end of a line, where Caffe's parse_log.sh ignores it."""
        now = time.perf_counter()
        elapsed, made = now - self._timer, self.iter - self._last_shown
        pace = f" ({made / elapsed:.4g} iter/s, {elapsed:.4g}s/{made} iters)" if made else ""
        self._timer, self._last_shown = now, self.iter
        self.log(f"Iteration {self.iter}, loss = {self._mean_loss():.6g}")
        self._log_outputs("Train", self.net, outputs)
        self.log(f"Iteration {self.iter}, lr = {rate:.6g}{pace}")

    def _log_outputs(self, kind: str, net: Net, outputs: Mapping[str, Tensor]) -> None:
        number = 0
        for name in net.outputs:
            for value in outputs[name].flatten().tolist():
                weight = net.loss_weights.get(name, 0)
                share = f" (* {weight:g} = {weight * value:.6g} loss)" if weight else ""
                self.log(f"    {kind} net output #{number}: {name} = {value:.6g}{share}")
                number += 1

    def _inputs(self, net: Net, feed: Feed, number: int) -> Mapping[str, Any]:
        if not net.inputs:
            return {}
        if feed is None:
            raise CaffeFormatError(
                f"{net.file}: no data layer provides its inputs {', '.join(net.inputs)}: set the solver's feed "
                "(test_feed for test nets)"
            )
        return feed(number) if callable(feed) else feed

    @staticmethod
    def _shown(net: Net) -> list[str]:
        return list({*net.outputs, *net.loss_weights})

    @torch.no_grad()
    def test(self) -> list[dict[str, Tensor]]:
        """Returns the outputs of each test net, averaged over ``test_iter`` forward passes (Solver::Test)."""
        results = []
        for i, net in enumerate(self.test_nets):
            self.log(f"Iteration {self.iter}, Testing net (#{i})")
            sums: dict[str, Tensor] = {}
            loss = 0.0
            with suitable_threads(net):
                for number in range(self.param.test_iter[i]):
                    blobs = net.compute(self._inputs(net, self.test_feed, number), keep=self._shown(net))
                    loss += float(net.loss(blobs)) if self.param.test_compute_loss else 0.0
                    for name in net.outputs:
                        sums[name] = sums[name] + blobs[name] if name in sums else blobs[name].clone()
            means = {name: total / self.param.test_iter[i] for name, total in sums.items()}
            if means:  # a test of no iterations has no results
                if self.param.test_compute_loss:
                    self.log(f"Test loss: {loss / self.param.test_iter[i]:.6g}")
                self._log_outputs("Test", net, means)
            results.append(means)
        return results

    # ---- snapshots

    @property
    def prefix(self) -> str:
        """The beginning of a snapshot's path: ``snapshot_prefix``, or else the solver's path without its suffix."""
        given = self.param.snapshot_prefix
        if not given or os.path.isdir(given):
            return str(Path(given or Path(self.file).parent) / Path(self.file).stem)
        return given

    def snapshot(self) -> tuple[Path, Path]:
        """Writes ``<prefix>_iter_<n>.caffemodel`` and ``.solverstate`` (plus ``.h5`` if ``snapshot_format`` is HDF5).

        Returns:
            the two files. Each is written completely or not at all, the weights first.

        Raises:
            CaffeFormatError: they can't be written.
        """
        in_hdf5 = self.param.snapshot_format == 0
        ending = ".h5" if in_hdf5 else ""
        model, state = (f"{self.prefix}_iter_{self.iter}.{kind}{ending}" for kind in ("caffemodel", "solverstate"))
        form = "" if self.flavour == "lisa" else "HDF5 file " if in_hdf5 else "binary proto file "
        self.log(f"Snapshotting to {form}{model}")
        save_net(self.net, model)
        self.log(f"Snapshotting solver state to {form}{state}")
        history = self.optimizer.history()
        snapshot.write_state(state, self.iter, model, self.rate.current_step, history, self.flavour)
        return Path(model), Path(state)

    def restore(self, path: str | Path) -> None:
        """Resumes from a snapshot written by Caffe or by ``snapshot`` (Solver::Restore).

        Raises:
            CaffeFormatError: a file is missing or damaged, or belongs to another net or kind of solver.
        """
        state = snapshot.read_state(path, self.flavour)
        self.log(f"Restoring previous solver status from {path}")
        if state["learned_net"]:
            self.net.load_weights(snapshot.find_weights(path, state["learned_net"]))
        history = [torch.from_numpy(np.array(blob.data)).view(blob.shape) for blob in state["history"]]
        for i, (blob, ours) in enumerate(zip(state["history"], self.optimizer.history(), strict=False)):
            if blob.fits(tuple(ours.shape)):
                history[i] = history[i].view(ours.shape)  # shapes of 2014 have leading ones
        with within(str(path)):
            self.optimizer.load_history(history, state["iter"])
        self.iter, self.passes = state["iter"], state["iter"] * self.param.iter_size
        self.rate.current_step = state["current_step"]
