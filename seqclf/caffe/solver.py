"""Caffe's solver: a net, its test nets, an update rule and a rate; stepped, tested, saved and resumed (solver.cpp)."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seqclf.caffe import hdf5, optim
from seqclf.caffe.error import CaffeFormatError, within
from seqclf.caffe.files import blob_of, cut, parse_binary, read_bytes, read_message, with_blobs, write_file
from seqclf.caffe.net import PHASES, Net, build_net, read_net_structure, save_net
from seqclf.caffe.policies import policy
from seqclf.caffe.schema import Flavour, schema
from seqclf.caffe.upgrade import read_upgraded

Feed = Mapping[str, Any] | Callable[[int], Mapping[str, Any]] | None
"""Values for a net's ``Input`` layers: the same at every forward pass, or by the number of the pass (from 0)."""


class Solver:
    """Trains a net as Caffe does.

    Attributes:
        param: the ``SolverParameter``, in today's form.
        net: the train net.
        test_nets: the nets that are tested; they share the train net's parameters.
        optimizer: one of ``seqclf.caffe.optim``.
        iter: how many updates were made.
        feed: what the train net's inputs are; None where its data layers give all. Test nets take ``test_feed``.
        loss: of the newest update, before it.
        log: called with each line that Caffe would log.
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
        self.iter = self.passes = 0
        self.loss = float("nan")
        for field in ("iter_size", "average_loss"):
            if getattr(param, field) < 1:
                raise CaffeFormatError(f"{file}: field {field}: is {getattr(param, field)}, expected at least 1")
        self._recent: deque[float] = deque(maxlen=param.average_loss)
        if param.random_seed >= 0:
            torch.manual_seed(param.random_seed)
        self.net = self._train_net(python).to(self.device)
        self.test_nets = [net.to(self.device) for net in self._test_nets(python)]
        for net in self.test_nets:
            net.share(self.net)
        groups = [{"params": [p], "lr_mult": lr, "decay_mult": decay} for p, lr, decay in self.net.multipliers]
        with within(file):
            self.rate = policy(param)
            self.optimizer = optim.from_solver(param, groups, flavour)

    # ---- nets

    def _path(self, name: str) -> str:
        """A file that the solver names: relative to where the program runs, as in Caffe, or else to its own file."""
        beside = os.path.join(os.path.dirname(self.file), name)
        return name if os.path.exists(name) or not os.path.exists(beside) else beside

    def _named(self, field: str, name: str) -> str:
        """The path of a file that a field names."""
        path = self._path(name)
        if not os.path.isfile(path):
            raise CaffeFormatError(f'{self.file}: field {field}: there is no file "{name}"')
        return path

    def _net(self, message: Any, file: str, phase: str, state: Any, python: Any) -> Net:
        if len(self.param.weights) > 1 or (len(self.param.weights) == 1 and "," in self.param.weights[0]):
            weights: list[str] = [w for entry in self.param.weights for w in entry.split(",")]
        else:
            weights = list(self.param.weights)
        own = next((s for s in (state, message.state) if s.HasField("phase")), None)
        in_phase = phase if own is None else PHASES[own.phase]  # as Caffe merges a solver's states with a net's own
        net = build_net(message, file, None, in_phase, self.flavour, state.level, tuple(state.stage), python)
        for path in weights if phase == "TRAIN" else ():
            self.load_weights(self._named("weights", path), net)
        return net

    def _train_net(self, python: Any) -> Net:
        p = self.param
        named = [field for field in ("net", "train_net", "net_param", "train_net_param") if p.HasField(field)]
        if len(named) != 1:
            told = ", ".join(named) or "none"
            raise CaffeFormatError(
                f"{self.file}: expected one of net, train_net, net_param and train_net_param, not {told}"
            )
        message, file = self._definition(named[0])
        return self._net(message, file, "TRAIN", p.train_state, python)

    def _definition(self, field: str, index: int | None = None) -> tuple[Any, str]:
        value = getattr(self.param, field)
        value = value if index is None else value[index]
        if isinstance(value, str):
            path = self._named(field, value)
            return read_net_structure(path, self.flavour), path
        copy = type(value)()
        copy.CopyFrom(value)
        return copy, self.file

    def _test_nets(self, python: Any) -> list[Net]:
        p = self.param
        named: list[tuple[str, int | None]] = [("test_net_param", i) for i in range(len(p.test_net_param))]
        named += [("test_net", i) for i in range(len(p.test_net))]
        shared = [field for field in ("net_param", "net") if p.HasField(field)]
        if shared:
            named += [(shared[0], None)] * (len(p.test_iter) - len(named))
        if len(named) != len(p.test_iter):
            raise CaffeFormatError(
                f"{self.file}: field test_iter: has {len(p.test_iter)} values, "
                f"expected one for each of {len(named)} test nets"
            )
        if len(p.test_state) not in (0, len(named)):
            raise CaffeFormatError(
                f"{self.file}: field test_state: has {len(p.test_state)} values, expected none or one for each of "
                f"{len(named)} test nets"
            )
        if named and p.test_interval < 1:
            raise CaffeFormatError(f"{self.file}: field test_interval: must be above 0 where there are test nets")
        nets = []
        for i, (field, index) in enumerate(named):
            message, file = self._definition(field, index)
            state = p.test_state[i] if len(p.test_state) else schema(self.flavour).NetState()
            nets.append(self._net(message, file, "TEST", state, python))
        return nets

    def load_weights(self, path: str | Path, net: Net | None = None) -> None:
        """Starts from trained parameters: what the file has for the net's layers; the rest is logged, as Caffe does."""
        self.log(f"Finetuning from {path}")
        missing, unread = (net or self.net).load_weights(self._path(str(path)), strict=False)
        for name in unread:
            self.log(f"Ignoring source layer {name}")
        for name in missing:
            self.log(f"No weights for layer {name}: drawn by its fillers")

    # ---- training

    def step(self, iterations: int, stop: Callable[[], str | None] | None = None) -> bool:
        """Makes so many updates, testing, displaying and taking snapshots where the solver says so (Solver::Step).

        Args:
            stop: asked after every update; "stop" ends the run there, "snapshot" takes one.

        Returns:
            whether ``stop`` ended it.

        Raises:
            CaffeFormatError: a net can't take its data; the loss is not finite.
        """
        p = self.param
        if self.iter + iterations >= 2**31:
            raise CaffeFormatError(f"{self.file}: {iterations} iterations from {self.iter} on: they count to 2**31 - 1")
        began, start = time.perf_counter(), self.iter
        for _ in range(iterations):
            if p.test_interval and self.iter % p.test_interval == 0 and (self.iter > 0 or p.test_initialization):
                self.test()
            self.optimizer.zero_grad(set_to_none=True)
            shown = bool(p.display) and self.iter % p.display == 0
            total: Tensor | None = None
            for _ in range(p.iter_size):
                blobs = self.net.compute(self._inputs(self.net, self.feed, self.passes), keep=self._shown(self.net))
                self.passes += 1
                loss = self.net.loss(blobs)
                if loss.requires_grad:
                    loss.backward()
                total = loss.detach() if total is None else total + loss.detach()
            assert total is not None
            self.loss = float(total) / p.iter_size
            self._recent.append(self.loss)
            with within(self.file):
                rate = self.rate(self.iter)
            if shown:
                elapsed = time.perf_counter() - began
                made = self.iter - start
                pace = f" ({made / elapsed:.4g} iter/s, {elapsed:.4g}s/{made} iters)" if made else ""
                self.log(f"Iteration {self.iter}, loss = {sum(self._recent) / len(self._recent):.6g}")
                self._log_outputs("Train", self.net, {name: blobs[name].detach() for name in self.net.outputs})
                self.log(f"Iteration {self.iter}, lr = {rate:.6g}{pace}")
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            self.optimizer.step()
            self.iter += 1
            request = stop() if stop is not None else None
            if request == "snapshot" or (p.snapshot and self.iter % p.snapshot == 0):
                self.snapshot()
            if request == "stop":
                return True
        return False

    def solve(self, stop: Callable[[], str | None] | None = None) -> None:
        """Trains to ``max_iter``, with the snapshot, line and test at the end that Caffe makes (Solver::Solve)."""
        p = self.param
        self.log(f"Solving {self.net.message.name}")
        self.log(f"Learning Rate Policy: {p.lr_policy}")
        if self.step(max(0, p.max_iter - self.iter), stop):
            if p.snapshot_after_train and not (p.snapshot and self.iter % p.snapshot == 0):
                self.snapshot()
            self.log("Optimization stopped early.")
            return
        if p.snapshot_after_train and not (p.snapshot and self.iter % p.snapshot == 0):
            self.snapshot()
        if p.display and self.iter % p.display == 0:
            with torch.no_grad():
                blobs = self.net.compute(self._inputs(self.net, self.feed, self.passes), keep=self._shown(self.net))
            self._recent.append(float(self.net.loss(blobs)))
            self.log(f"Iteration {self.iter}, loss = {sum(self._recent) / len(self._recent):.6g}")
        if p.test_interval and self.iter % p.test_interval == 0:
            self.test()
        self.log("Optimization Done.")

    def _inputs(self, net: Net, feed: Feed, number: int) -> Mapping[str, Any]:
        if not net.inputs:
            return {}
        if feed is None:
            raise CaffeFormatError(
                f"{net.file}: its inputs {', '.join(net.inputs)} come from no data layer: set the solver's feed "
                "(test_feed for test nets)"
            )
        return feed(number) if callable(feed) else feed

    @staticmethod
    def _shown(net: Net) -> list[str]:
        return list({*net.outputs, *net.loss_weights})

    def _log_outputs(self, kind: str, net: Net, outputs: Mapping[str, Tensor]) -> None:
        number = 0
        for name in net.outputs:
            for value in outputs[name].flatten().tolist():
                weight = net.loss_weights.get(name, 0)
                share = f" (* {weight:g} = {weight * value:.6g} loss)" if weight else ""
                self.log(f"    {kind} net output #{number}: {name} = {value:.6g}{share}")
                number += 1

    @torch.no_grad()
    def test(self) -> list[dict[str, Tensor]]:
        """Each test net's outputs, the means over ``test_iter`` forward passes (Solver::Test)."""
        results = []
        for i, net in enumerate(self.test_nets):
            self.log(f"Iteration {self.iter}, Testing net (#{i})")
            sums: dict[str, Tensor] = {}
            loss = 0.0
            for number in range(self.param.test_iter[i]):
                blobs = net.compute(self._inputs(net, self.test_feed, number), keep=self._shown(net))
                loss += float(net.loss(blobs)) if self.param.test_compute_loss else 0.0
                for name in net.outputs:
                    sums[name] = sums[name] + blobs[name] if name in sums else blobs[name].clone()
            means = {name: total / self.param.test_iter[i] for name, total in sums.items()}
            if means:  # a test of no iterations tells nothing
                if self.param.test_compute_loss:
                    self.log(f"Test loss: {loss / self.param.test_iter[i]:.6g}")
                self._log_outputs("Test", net, means)
            results.append(means)
        return results

    # ---- snapshots

    @property
    def prefix(self) -> str:
        """What a snapshot's name begins with: ``snapshot_prefix``, or else the solver's file without its ending."""
        said = self.param.snapshot_prefix
        if not said or os.path.isdir(said):
            return str(Path(said or Path(self.file).parent) / Path(self.file).stem)
        return said

    def snapshot(self) -> tuple[Path, Path]:
        """Writes ``<prefix>_iter_<n>.caffemodel`` and ``.solverstate`` (and ``.h5`` where ``snapshot_format`` is HDF5).

        Returns:
            the two files. Each is written whole or not at all, the weights first.

        Raises:
            CaffeFormatError: they can't be written.
        """
        in_hdf5 = self.param.snapshot_format == 0
        ending = ".h5" if in_hdf5 else ""
        model, state = (f"{self.prefix}_iter_{self.iter}.{kind}{ending}" for kind in ("caffemodel", "solverstate"))
        form = "HDF5" if in_hdf5 else "binary proto"
        self.log(f"Snapshotting to {form} file {model}")
        save_net(self.net, model)
        self.log(f"Snapshotting solver state to {form} file {state}")
        history = self.optimizer.history()
        step = self.rate.current_step
        if in_hdf5:
            hdf5.write_state(state, self.iter, model, step, history)
        else:
            message: Any = schema(self.flavour).SolverState(iter=self.iter, learned_net=model, current_step=step)
            arrays = (blob.detach().cpu().numpy() for blob in history)
            write_file(state, with_blobs(message, 3, arrays))
        return Path(model), Path(state)

    def restore(self, path: str | Path) -> None:
        """Goes on from a snapshot, one of Caffe's own or of ours (SGDSolver::RestoreSolverStateFromBinaryProto).

        Raises:
            CaffeFormatError: a file is missing or damaged, or is of another net or kind of solver.
        """
        state = read_state(path, self.flavour)
        self.log(f"Restoring previous solver status from {path}")
        if state["learned_net"]:
            said = state["learned_net"]
            places = (said, os.path.join(os.path.dirname(path), os.path.basename(said)))
            model = next((place for place in places if os.path.isfile(place)), None)
            if model is None:
                raise CaffeFormatError(f'{path}: field learned_net: there is no file "{said}"')
            self.net.load_weights(model)
        history = [torch.from_numpy(np.array(blob.data)).view(blob.shape) for blob in state["history"]]
        for i, (blob, ours) in enumerate(zip(state["history"], self.optimizer.history(), strict=False)):
            if blob.fits(tuple(ours.shape)):
                history[i] = history[i].view(ours.shape)  # 2014's have ones before
        with within(str(path)):
            self.optimizer.load_history(history, state["iter"])
        self.iter, self.passes = state["iter"], state["iter"] * self.param.iter_size
        self.rate.current_step = state["current_step"]


def read_state(path: str | Path, flavour: str = "bvlc") -> dict[str, Any]:
    """A ``.solverstate`` (or ``.solverstate.h5``): iter, learned_net, current_step and history, a list of ``Blob``.

    Raises:
        CaffeFormatError: the file is missing or damaged.
    """
    state = hdf5.read_state(path) if Path(path).suffix == ".h5" else _read_binary_state(path, flavour)
    for field in ("iter", "current_step"):
        if state[field] < 0:
            raise CaffeFormatError(f"{path}: field {field}: is {state[field]}, expected 0 or more")
    return state


def _read_binary_state(path: str | Path, flavour: str) -> dict[str, Any]:
    rest, cuts = cut(read_bytes(path), "SolverState", str(path))
    message: Any = parse_binary(rest, schema(flavour).SolverState(), str(path))
    pieces = list(chain.from_iterable(cuts[3]))
    history = [
        blob_of(blob, piece, f"{path}: history {i}")
        for i, (blob, piece) in enumerate(zip(message.history, pieces, strict=True))
    ]
    return {
        "iter": message.iter,
        "learned_net": message.learned_net,
        "current_step": message.current_step,
        "history": history,
    }


def read_solver(path: str | Path, flavour: str = "bvlc") -> Any:
    """The ``SolverParameter`` in a solver's prototxt, in today's form.

    Raises:
        CaffeFormatError: the file is missing or no such message.
    """
    return read_upgraded(read_message(path, schema(flavour).SolverParameter()), str(path))


def load_solver(
    path: str | Path,
    weights: str | Path | Sequence[str | Path] | None = None,
    snapshot: str | Path | None = None,
    flavour: Flavour = "bvlc",
    device: str | torch.device = "cpu",
    python: Mapping[str, Callable[..., Any]] | None = None,
    log: Callable[[str], None] | None = None,
) -> Solver:
    """A solver with its nets, new or where a snapshot left off.

    Args:
        path: the solver's prototxt. Files that it names are looked for where the program runs, then beside it.
        weights: one or more files to take trained parameters from, by layer name; what does not match is logged.
        snapshot: a ``.solverstate`` or ``.solverstate.h5`` to go on from.
        flavour: "bvlc" or "lisa".
        device: where to compute; the prototxt's ``solver_mode`` does not choose it.
        python: what stands in for ``Python`` layers, by the layer's class name.
        log: called with each line that Caffe would log; None for silence.

    Raises:
        CaffeFormatError: what is wrong with which file and field; both weights and a snapshot were given.
    """
    if weights is not None and snapshot is not None:
        raise CaffeFormatError("give a snapshot to go on from, or weights to start from, not both")
    solver = Solver(read_solver(path, flavour), str(path), flavour, device, python, log)
    if snapshot is not None:
        solver.restore(snapshot)
    for one in [weights] if isinstance(weights, (str, Path)) else weights or ():
        solver.load_weights(one)
    return solver
