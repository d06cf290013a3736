"""The one training loop of all arms."""

import copy
import json
import math
import signal
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NoReturn, final

import numpy as np
import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from molml.io import write_atomic
from molml.training.checkpoint import describe, differences, environment, load_checkpoint, save_checkpoint
from molml.training.data import Dataset, batches
from molml.training.distributed import Processes, processes
from molml.training.evaluation import Evaluator, Loss
from molml.training.interruption import Interruption, TrainingInterrupted
from molml.training.loss import Term, add, means, objective

CHECKPOINT = "checkpoint.molml"
METRICS = "metrics.jsonl"


class TrainingDivergedError(ArithmeticError):
    """A loss or a gradient became NaN or infinite.

    Attributes
    ----------
    epoch : int
        From 1.
    batch : int
        Batch of the epoch, from 1.
    indices : list of int
        Items of that batch, as numbered in the data set.
    """

    def __init__(self, message: str, epoch: int, batch: int, indices: Sequence[int]) -> None:
        super().__init__(message)
        self.epoch, self.batch, self.indices = epoch, batch, [int(i) for i in indices]


@final
class History(list[dict[str, Any]]):
    """One dict per epoch, as written to metrics.jsonl; None stands for a number that is not finite.

    Keys: epoch (from 1), batches (in it), seconds (since the start), lr, train_objective, train_<term>,
    valid_objective, valid_<term>; a term called x_mse also gives x_rmse. Training figures are means over the
    epoch, while the weights changed; those of validation belong to the averaged weights where an average is kept.

    Attributes
    ----------
    best_epoch : int
        Epoch whose weights were kept, the last one with keep="last"; 0 before the first.
    stopped_by : str or None
        "max_epochs", "patience" or "minutes"; None while training.
    """

    best_epoch: int = 0
    stopped_by: str | None = None


@dataclass
class _Run:
    """Where a run is: with the states of model, optimiser and scheduler, all that a checkpoint holds."""

    epoch: int = 1
    batch: int = 0  # batches of this epoch that are done
    seconds: float = 0.0
    sums: dict[str, Term] = field(default_factory=dict)
    history: History = field(default_factory=History)
    average: list[Tensor] = field(default_factory=list)  # of each parameter; empty if none is kept
    best_objective: float = math.inf
    best_weights: dict[str, Any] = field(default_factory=dict)


@final
class Trainer:
    """Fits the parameters of a model to a data set by any torch optimiser.

    Everything random (order of the items, dropout, noise drawn from torch's generators in the loss) follows from
    `seed`, epoch, batch and process alone, and the caller's random state is left as it was. A run that is killed and
    resumed therefore gives the same bits as one that was not, on the same machine with the same versions and number
    of threads; unless `minutes` lets the clock decide.

    Under torchrun every process takes a slice of every batch, and weights are those of one process to rounding.

    Parameters
    ----------
    model : torch.nn.Module
        Trained in place. It is in training mode, `model.training`, in training steps and in evaluation mode after.
    loss : callable
        (model, batch) -> {name: Term}, the same names for every batch. Minimised is Σ weight · total / count; terms
        of weight 0 are metrics. Gradients are enabled in evaluations, too, so that forces can be taken; a graph of
        them (create_graph) is needed only if `model.training`.
    optimizer : torch.optim.Optimizer
        Of parameters of the model. Called as step(closure), so that L-BFGS works: give it `batch_size` = len(train).
    batch_size : int
        Items per step, over all processes; the last batch of an epoch may be smaller.
    max_epochs : int
        Most passes over the data.
    scheduler : torch.optim.lr_scheduler.LRScheduler, optional
        Stepped after every optimiser step.
    lr_schedule : callable, optional
        Fraction of training done -> factor of the optimiser's learning rates, such as `cosine()`; not with `scheduler`.
        The fraction, in [0, 1], is the larger one of those of `max_epochs` and of `minutes`.
    weight_schedule : callable, optional
        Fraction of training done -> {name: weight} that replace the terms' weights in training steps. All that is
        reported or decides anything uses the weights at fraction 1.
    patience : int, optional
        Stop after so many epochs without a lower validation objective (training objective if there is no validation
        data).
    clip_norm : float, optional
        Largest norm of the gradient; a longer one is scaled down (Pascanu et al., ICML 2013, algorithm 1).
    average_epochs : float, optional
        Keep an exponential moving average of the parameters over so many epochs, of the last tenth of the steps at
        first. Validation, `patience` and the model in the end have the averaged parameters, which are close to a
        minimum that the parameters themselves circle at the distance that the learning rate sets (Polyak and Juditsky,
        SIAM J. Control Optim. 30, 838 (1992)). Buffers are not averaged.
    keep : {"best", "last"}
        Which weights the model has in the end: those of the epoch with the lowest validation objective (training
        objective without validation data), or of the last epoch, where validation data are too few to tell; "last" has
        no `patience`.
    minutes : float, optional
        Stop when so much time has passed, also within an epoch. Time before a resume counts.
    seed : int
        Seed of everything random here, 0 or more.
    directory : path-like, optional
        Folder, made if need be, for checkpoint.molml and metrics.jsonl (a line per epoch).
    checkpoint_seconds : float
        Longest time between two checkpoints, to the end of a step. They are also written at the start, at the end
        and after every epoch, except after epochs so short that this would take more than a tenth of the time.
    config : dict, optional
        JSON-able description of whatever else the run depends on; compared on resume.
    data_hash : str, optional
        Hash of the data; compared on resume.
    progress : bool, optional
        Show a progress bar; if not given, only if stderr is a terminal.
    description : str
        Name of the bar.

    Raises
    ------
    TypeError, ValueError
        If a parameter is of the wrong type or out of its range.

    Examples
    --------
    >>> from molml.training import ArrayDataset, squared_error
    >>> data = ArrayDataset(torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([[1.0], [3.0], [5.0]]))
    >>> line = torch.nn.Linear(1, 1)
    >>> trainer = Trainer(
    ...     line,
    ...     lambda model, batch: {"mse": squared_error(model(batch[0]), batch[1])},
    ...     torch.optim.LBFGS(line.parameters()),
    ...     batch_size=3,
    ...     max_epochs=5,
    ... )
    >>> history = trainer.fit(data)
    >>> round(line.weight.item(), 3), round(line.bias.item(), 3)
    (2.0, 1.0)
    """

    def __init__(
        self,
        model: torch.nn.Module,
        loss: Loss,
        optimizer: torch.optim.Optimizer,
        *,
        batch_size: int,
        max_epochs: int,
        scheduler: LRScheduler | None = None,
        lr_schedule: Callable[[float], float] | None = None,
        weight_schedule: Callable[[float], Mapping[str, float]] | None = None,
        patience: int | None = None,
        clip_norm: float | None = None,
        average_epochs: float | None = None,
        keep: Literal["best", "last"] = "best",
        minutes: float | None = None,
        seed: int = 0,
        directory: str | Path | None = None,
        checkpoint_seconds: float = 60.0,
        config: Mapping[str, Any] | None = None,
        data_hash: str | None = None,
        progress: bool | None = None,
        description: str = "training",
    ) -> None:
        for name, value, least in (
            ("batch_size", batch_size, 1),
            ("max_epochs", max_epochs, 1),
            ("patience", patience, 1),
            ("seed", seed, 0),
        ):
            if value is not None and (not isinstance(value, int) or value < least):
                raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")
        for name, number, absence in (
            ("clip_norm", clip_norm, "limit"),
            ("minutes", minutes, "limit"),
            ("average_epochs", average_epochs, "average"),
        ):
            if number is not None and not 0 < number < math.inf:
                raise ValueError(f"{name} must be positive and finite, got {number}; leave it out for no {absence}")
        if keep not in ("best", "last"):
            raise ValueError(f"keep must be 'best' or 'last', got {keep}")
        if keep == "last" and patience is not None:
            raise ValueError("patience waits for the best weights, keep='last' takes the last ones; leave one out")
        if not checkpoint_seconds >= 0:
            raise ValueError(f"checkpoint_seconds must be 0 or more, got {checkpoint_seconds}")
        self._parameters = [p for group in optimizer.param_groups for p in group["params"]]
        strangers = {id(p) for p in self._parameters} - {id(p) for p in model.parameters()}
        if strangers:
            raise ValueError(
                f"optimizer must hold parameters of the model only, got {len(strangers)} others; make it from "
                "model.parameters(), after the model is complete"
            )
        if isinstance(scheduler, ReduceLROnPlateau):
            raise TypeError("scheduler must not need the loss, got ReduceLROnPlateau; use lr_schedule=cosine(), say")
        if scheduler is not None and scheduler.optimizer is not optimizer:
            raise ValueError("scheduler must be made for the optimizer given here, got one of another optimizer")
        if scheduler is not None and lr_schedule is not None:
            raise ValueError("scheduler and lr_schedule both set the learning rate; give one of them")
        try:
            json.dumps(config, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise TypeError(f"config must be JSON-able so that a resume can compare it, but {error}") from error
        self.model, self.loss, self.optimizer, self.scheduler = model, loss, optimizer, scheduler
        self.batch_size, self.max_epochs, self.patience = batch_size, max_epochs, patience
        self.lr_schedule, self.weight_schedule, self.clip_norm = lr_schedule, weight_schedule, clip_norm
        self.average_epochs, self.keep = average_epochs, keep
        self.minutes, self.seed, self.checkpoint_seconds = minutes, seed, checkpoint_seconds
        self.directory = None if directory is None else Path(directory)
        self.progress, self.description = progress, description
        self._rates = [group["lr"] for group in optimizer.param_groups] if lr_schedule else []
        # taken before anything has moved: what a resumed run must start from, too
        self._settings: dict[str, Any] = {
            "batch_size": batch_size,
            "max_epochs": max_epochs,
            "patience": patience,
            "clip_norm": clip_norm,
            "average_epochs": average_epochs,
            "keep": keep,
            "minutes": minutes,
            "seed": seed,
            "optimizer": type(optimizer).__name__,
            "parameters": {str(i): describe(g) for i, g in enumerate(optimizer.state_dict()["param_groups"])},
            "scheduler": scheduler and {"class": type(scheduler).__name__, **describe(scheduler.state_dict())},
            "schedules": [name for name in ("lr_schedule", "weight_schedule") if getattr(self, name)],
            "model": {k: f"{v.dtype} {tuple(v.shape)}" for k, v in model.state_dict().items() if isinstance(v, Tensor)},
            "config": describe(dict(config or {})),
            "data_hash": data_hash,
        }
        self._cuda = sorted({p.device.index for p in self._parameters if p.device.type == "cuda"})
        self._evaluator = Evaluator(model, loss, self._parameters[0].device)
        self._good: dict[str, Any] = {}
        self._saved_at = self._save_cost = 0.0

    def fit(self, train: Dataset, valid: Dataset | None = None, *, resume: bool = False) -> History:
        """Train, and leave the weights that `keep` names in the model.

        Parameters
        ----------
        train : Dataset
        valid : Dataset, optional
            Decides which weights are best, unless the last are kept, and, with `patience`, when to stop.
        resume : bool
            Continue from the checkpoint in `directory`, if there is one; a run that was finished is not begun again.

        Returns
        -------
        History

        Raises
        ------
        TrainingDivergedError
            If a loss or gradient is NaN or infinite; the model then has its last good weights (of the last
            checkpoint or end of an epoch) and the checkpoint is left as it was.
        TrainingInterrupted
            After Ctrl-C or SIGTERM, when the step is done and the checkpoint written; the model has its best weights.
        ResumeError
            If the settings or data are not those of the checkpoint; the message says which.
        ValueError
            If a data set is empty, or the loss does not give what it should.
        """
        if len(train) == 0 or (valid is not None and len(valid) == 0):
            raise ValueError("train and valid must not be empty; leave valid out if there is none")
        if resume and self.directory is None:
            raise ValueError("resume needs the directory of the run; give it to the Trainer")
        self._evaluator.processes = processes()
        self._settings |= {"n_train": len(train), "n_valid": 0 if valid is None else len(valid)}
        run = self._begin(resume)
        started = time.monotonic() - run.seconds
        with torch.random.fork_rng(self._cuda), Interruption() as interruption, self._bar(run, train) as bar:
            try:
                while run.history.stopped_by is None:
                    self._train_epoch(run, train, started, interruption, bar)
                    self._end_epoch(run, valid, started, bar)
            except TrainingDivergedError:
                self.model.load_state_dict(self._good)
                raise
            except TrainingInterrupted:
                if run.best_weights:
                    self.model.load_state_dict(run.best_weights)
                raise
            finally:
                self.model.eval()
        self.model.load_state_dict(run.best_weights)
        self._processes.wait()
        return run.history

    def evaluate(self, dataset: Dataset) -> dict[str, float]:
        """Objective and mean of every term over a data set, in evaluation mode.

        Parameters
        ----------
        dataset : Dataset

        Returns
        -------
        dict of str to float
            objective, every term, and x_rmse beside every x_mse; nan where nothing was counted.

        Raises
        ------
        TrainingDivergedError
            If the objective is NaN or infinite.
        ValueError
            If the data set is empty.
        """
        if len(dataset) == 0:
            raise ValueError("dataset must not be empty, got no items")
        self._evaluator.processes = processes()
        return self._evaluate(dataset, epoch=0)

    def _begin(self, resume: bool) -> _Run:
        run = _Run()
        state = None
        if self.directory is not None and self._processes.rank == 0:
            self.directory.mkdir(parents=True, exist_ok=True)
            if resume and (self.directory / CHECKPOINT).is_file():
                state = load_checkpoint(self.directory / CHECKPOINT, self._settings)
        # read by one process: the others may be on machines that do not see the file
        state = self._processes.broadcast(state)
        if state is not None:
            run = self._restore(state)
        elif self._processes.size > 1:
            self.model.load_state_dict(self._processes.broadcast(_copy(self.model.state_dict())))
        if self.average_epochs is not None and state is None:
            run.average = [p.detach().clone() for p in self._parameters]
        self._good = _copy(self.model.state_dict())
        if self.directory is not None and self._processes.rank == 0:
            # lines after the checkpoint will come again
            lines = "".join(json.dumps(record, allow_nan=False) + "\n" for record in run.history)
            write_atomic(self.directory / METRICS, lines.encode())
            if state is None:
                self._save(run)
        self._saved_at = time.monotonic()
        return run

    def _train_epoch(self, run: _Run, train: Dataset, started: float, interruption: Interruption, bar: Any) -> None:
        """Steps of an epoch, from wherever the run is, to its end or the end of the time."""
        rng = np.random.default_rng([self.seed, run.epoch])
        parts = batches(train, self.batch_size, rng)
        n_batches = len(parts)
        seeds = rng.integers(2**31, size=n_batches)
        self.model.train()
        while run.batch < n_batches and not self._out_of_time(run):
            self._step(run, train, parts[run.batch], int(seeds[run.batch]), n_batches)
            run.batch += 1
            interrupted = interruption.received
            run.seconds = time.monotonic() - started
            if self._processes.size > 1:
                # all must stop at the same step, whoever was hit, and go by one clock
                mine = (run.seconds if self._processes.rank == 0 else 0.0, float(interrupted or 0))
                run.seconds, number = self._processes.sum(torch.tensor(mine, dtype=torch.float64)).tolist()
                interrupted = interrupted or (signal.SIGTERM if number else None)
            if interrupted is not None:
                self._stop(run, interrupted)
            if self.directory is not None and time.monotonic() - self._saved_at >= self.checkpoint_seconds:
                self._save(run)
            bar.update(self._fraction(run, n_batches) - bar.n)

    def _step(self, run: _Run, train: Dataset, indices: np.ndarray, seed: int, n_batches: int) -> None:
        """One optimiser step on the items `indices`."""
        batch = self._evaluator.share(train, indices)
        fraction = self._fraction(run, n_batches)
        weights = self.weight_schedule(fraction) if self.weight_schedule else None
        if self.lr_schedule:
            for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
                group["lr"] = rate * self.lr_schedule(fraction)
        evaluations: list[Mapping[str, Term]] = []

        def closure() -> Any:
            self.optimizer.zero_grad()
            # at every call: a line search must see one function, dropout included
            self._seed(seed + self._processes.rank)
            mine = self._evaluator.terms(batch)
            sums = self._evaluator.sum(mine)
            if mine:
                # this process's summand of the objective of the whole batch: totals of its share, counts of all
                part = objective({k: sums[k]._replace(total=term.total) for k, term in mine.items()}, weights)
                if not part.requires_grad:
                    raise ValueError("the loss must depend on a parameter of the model, got a constant")
                part.backward()
            self._processes.sum_gradients(self._parameters)
            value = part.detach() if sums is mine else objective(sums, weights)
            gradients = [p.grad for p in self._parameters if p.grad is not None]
            norm = torch.nn.utils.get_total_norm(gradients)
            # one number, so that a GPU is waited for once
            if not math.isfinite(float(norm + value)):
                raise TrainingDivergedError(
                    f"{self.description} diverged in epoch {run.epoch}, batch {run.batch + 1}: the objective is "
                    f"{float(value):g}, the norm of its gradient {float(norm):g}. The batch holds items "
                    f"{_listed(indices)}. Look for damaged data among them; else lower the learning rate or set "
                    "clip_norm",
                    run.epoch,
                    run.batch + 1,
                    indices.tolist(),
                )
            if self.clip_norm is not None:
                torch.nn.utils.clip_grads_with_norm_(self._parameters, self.clip_norm, norm)
            evaluations.append(sums)
            return value

        self.optimizer.step(closure)
        add(run.sums, evaluations[0])
        if self.average_epochs is not None:
            n_steps = (run.epoch - 1) * n_batches + run.batch + 1
            # the start is forgotten sooner than the horizon alone would allow
            part = min(1.0, max(1.0 / (self.average_epochs * n_batches), 10.0 / (n_steps + 9.0)))
            with torch.no_grad():
                torch._foreach_lerp_(run.average, self._parameters, part)
        if self.scheduler is not None:
            self.scheduler.step()

    def _end_epoch(self, run: _Run, valid: Dataset | None, started: float, bar: Any) -> None:
        """Validate, record, and decide whether to go on."""
        if not self._weights_are_finite():
            raise TrainingDivergedError(
                f"{self.description} diverged: a weight became infinite at the end of epoch {run.epoch}; lower the "
                "learning rate or set clip_norm",
                run.epoch,
                run.batch,
                [],
            )
        final_weights = self._final_weights
        train_objective = float(objective(run.sums, final_weights))
        figures = {"train_objective": train_objective} | {f"train_{k}": v for k, v in means(run.sums).items()}
        decisive = train_objective
        if valid is not None:
            with self._averaged(run):
                validation = self._evaluate(valid, run.epoch)
            figures |= {f"valid_{name}": value for name, value in validation.items()}
            decisive = validation["objective"]
        run.seconds = self._processes.broadcast(time.monotonic() - started)
        history = run.history
        if self.keep == "last" or decisive < run.best_objective or not history.best_epoch:
            run.best_objective, history.best_epoch = decisive, run.epoch
            with self._averaged(run):
                run.best_weights = _copy(self.model.state_dict())
        record = {
            "epoch": run.epoch,
            "batches": run.batch,
            "seconds": round(run.seconds, 3),
            "lr": float(self.optimizer.param_groups[0].get("lr", math.nan)),
        } | figures
        history.append({k: v if math.isfinite(v) else None for k, v in record.items()})
        if self.patience is not None and run.epoch - history.best_epoch >= self.patience:
            history.stopped_by = "patience"
        elif self._out_of_time(run):
            history.stopped_by = "minutes"
        elif run.epoch == self.max_epochs:
            history.stopped_by = "max_epochs"
        losses = {name: f"{record[f'{name}_objective']:.4g}" for name in ("train", "valid")[: 1 + (valid is not None)]}
        bar.set_postfix(losses | {"best": f"epoch {history.best_epoch}"}, refresh=False)
        run.epoch, run.batch, run.sums = run.epoch + 1, 0, {}
        self._good = _copy(self.model.state_dict())
        if self.directory is not None and self._processes.rank == 0:
            with open(self.directory / METRICS, "a", encoding="utf-8") as file:
                file.write(json.dumps(history[-1], allow_nan=False) + "\n")
            pause = min(self.checkpoint_seconds, 10 * self._save_cost)
            if history.stopped_by or time.monotonic() - self._saved_at >= pause:
                self._save(run)

    def _evaluate(self, dataset: Dataset, epoch: int) -> dict[str, float]:
        was_training = self.model.training
        self.model.eval()
        with torch.random.fork_rng(self._cuda), torch.enable_grad():
            # the same noise at every epoch makes them comparable
            self._seed(self.seed + self._processes.rank)
            parts = self._evaluator.batches(dataset, self.batch_size)
        self.model.train(was_training)
        weights = {name: term.weight for name, term in parts[0].items()} | dict(self._final_weights or {})
        decisive = [name for name, weight in weights.items() if weight != 0]
        totals = torch.stack([torch.stack([terms[name].total for name in decisive]) for terms in parts])
        broken = (~torch.isfinite(totals)).any(dim=1).nonzero().flatten().tolist()
        if broken:
            indices = batches(dataset, self.batch_size)[broken[0]].tolist()
            raise TrainingDivergedError(
                f"{self.description} diverged: after epoch {epoch} the objective of the data under evaluation is not "
                f"finite in batch {broken[0] + 1}, which holds their items {_listed(indices)}. Look for damaged data "
                "among them; else lower the learning rate or set clip_norm",
                epoch,
                broken[0] + 1,
                indices,
            )
        sums: dict[str, Term] = {}
        for terms in parts:
            add(sums, terms)
        return {"objective": float(objective(sums, weights))} | means(sums)

    @contextmanager
    def _averaged(self, run: _Run) -> Iterator[None]:
        """The model with the averaged parameters, if an average is kept."""
        own = [p.detach().clone() for p in self._parameters] if run.average else []
        _assign(self._parameters, run.average)
        try:
            yield
        finally:
            _assign(self._parameters, own)

    def _seed(self, seed: int) -> None:
        # not torch.manual_seed: it also visits devices that are not used, which takes longer than a small step
        torch.default_generator.manual_seed(seed)
        for device in self._cuda:
            torch.cuda.default_generators[device].manual_seed(seed)

    def _fraction(self, run: _Run, n_batches: int) -> float:
        """Fraction of training done."""
        done = (run.epoch - 1 + run.batch / n_batches) / self.max_epochs
        if self.minutes is not None:
            done = max(done, run.seconds / (60 * self.minutes))
        return min(done, 1.0)

    def _out_of_time(self, run: _Run) -> bool:
        return self.minutes is not None and run.seconds >= 60 * self.minutes

    @property
    def _processes(self) -> Processes:
        return self._evaluator.processes

    @property
    def _final_weights(self) -> Mapping[str, float] | None:
        return self.weight_schedule(1.0) if self.weight_schedule else None

    def _bar(self, run: _Run, train: Dataset) -> Any:
        from tqdm import tqdm

        return tqdm(
            desc=self.description,
            total=1.0,
            initial=self._fraction(run, _n_batches(train, self.batch_size)),
            # tqdm's None: only if stderr is a terminal
            disable=True if self._processes.rank > 0 else None if self.progress is None else not self.progress,
            bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}",
        )

    def _stop(self, run: _Run, received: signal.Signals) -> NoReturn:
        self._save(run)
        self._processes.wait()  # torchrun ends the others as soon as one has ended
        hint = "give the Trainer a directory to be able to continue after the next one"
        if self.directory is not None:
            path = self.directory / CHECKPOINT
            hint = f"{path} is complete: continue with resume=True (on the command line: --resume)"
        where = f"in epoch {run.epoch} of {self.max_epochs}"
        raise TrainingInterrupted(f"{self.description} was interrupted by {received.name} {where}; {hint}", received)

    def _save(self, run: _Run) -> None:
        """Write the checkpoint, if this process is to write one."""
        begun = self._saved_at = time.monotonic()
        # weights that overflowed in the last step must not take the place of good ones; the next step stops with a name
        if not self._weights_are_finite():
            return
        self._good = _copy(self.model.state_dict())
        if self.directory is None or self._processes.rank > 0:
            return
        state = {
            "model": dict(self.model.state_dict()),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler and self.scheduler.state_dict(),
            "epoch": run.epoch,
            "batch": run.batch,
            "seconds": run.seconds,
            "sums": {k: (float(term.total), float(term.count), term.weight) for k, term in run.sums.items()},
            "history": list(run.history),
            "best_epoch": run.history.best_epoch,
            "stopped_by": run.history.stopped_by,
            "average": run.average,
            "best_objective": run.best_objective,
            "best_weights": run.best_weights,
            "environment": environment(self._processes.size),
        }
        save_checkpoint(self.directory / CHECKPOINT, self._settings, state)
        self._saved_at = time.monotonic()
        self._save_cost = self._saved_at - begun

    def _restore(self, state: dict[str, Any]) -> _Run:
        now = environment(self._processes.size)
        if state["environment"] != now:
            changes = "; ".join(differences(state["environment"], now))
            warnings.warn(f"the resumed run will equal the uninterrupted one to rounding only: {changes}", stacklevel=4)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state["scheduler"])
        history = History(state["history"])
        history.best_epoch, history.stopped_by = state["best_epoch"], state["stopped_by"]
        device = self._parameters[0].device
        return _Run(
            epoch=state["epoch"],
            batch=state["batch"],
            seconds=state["seconds"],
            sums={
                name: Term(torch.tensor(total, dtype=torch.float64, device=device), count, weight)
                for name, (total, count, weight) in state["sums"].items()
            },
            history=history,
            average=[t.to(device) for t in state["average"]],
            best_objective=state["best_objective"],
            best_weights=state["best_weights"],
        )

    def _weights_are_finite(self) -> bool:
        return all(bool(torch.isfinite(p).all()) for p in self._parameters)


def _assign(parameters: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    with torch.no_grad():
        for parameter, value in zip(parameters, values, strict=False):
            parameter.copy_(value)


def _n_batches(dataset: Dataset, batch_size: int) -> int:
    return -(-len(dataset) // batch_size)


def _copy(state: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v.detach().clone() if isinstance(v, Tensor) else copy.deepcopy(v) for k, v in state.items()}


def _listed(indices: Sequence[int] | np.ndarray, most: int = 20) -> str:
    shown = ", ".join(str(int(i)) for i in indices[:most])
    return shown if len(indices) <= most else f"{shown}, … ({len(indices)} in all)"
