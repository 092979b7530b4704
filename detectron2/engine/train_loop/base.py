"""Iterations and hooks: what every trainer does, whatever one iteration is."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Mapping
from typing import Any

from detectron2.utils.events.storage import EventStorage
from detectron2.utils.user_errors import UserNotImplementedError, UserTypeError, describe_error

__all__ = ["HookBase", "TrainerBase"]

logger = logging.getLogger(__package__)  # the name that readers of logs look for


class HookBase:
    """Something that a trainer does around its steps. Every method does nothing until a subclass overrides
    it.

    The trainer calls its hooks, in the order in which they were registered:

        hook.before_train()
        for iter in range(start_iter, max_iter):
            hook.before_step()
            trainer.run_step()      # calls hook.after_backward() between the gradients and the update
            hook.after_step()
            iter += 1
        hook.after_train()          # also when the training fails

    A hook reads `self.trainer.iter`: the current iteration in the step methods; in `after_train` the
    number of finished iterations, which is `max_iter` exactly when all were done.
    """

    trainer: TrainerBase = None  # type: ignore[assignment]  # set by register_hooks, before any method is called
    """The trainer that the hook is registered to."""

    def before_train(self) -> None:
        """Called before the first iteration."""

    def after_train(self) -> None:
        """Called after the last iteration, and after an exception that ends the training."""

    def before_step(self) -> None:
        """Called before each iteration."""

    def after_backward(self) -> None:
        """Called in each iteration when the gradients are there and the weights are not updated yet."""

    def after_step(self) -> None:
        """Called after each iteration."""

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint must hold to continue this hook. A hook that has state also defines
        `load_state_dict(state)`."""
        return {}


class TrainerBase:
    """Run `run_step` between two iterations and call hooks around it.

    Attributes:
        iter: the current iteration.
        start_iter: the iteration that this run started with.
        max_iter: the iteration that this run ends before.
        storage: the `EventStorage` of this run, once `train` was called.
        outer: the trainer in whose loop this one does the steps, where there is one. Its hooks see the
            gradients too.
    """

    outer: TrainerBase | None = None

    def __init__(self) -> None:
        self._hooks: list[HookBase] = []
        self.iter: int = 0
        self.start_iter: int = 0
        self.max_iter: int
        self.storage: EventStorage

    def register_hooks(self, hooks: list[HookBase | None]) -> None:
        """Add hooks behind those that are registered already; None entries are left out.

        Args:
            hooks: the hooks, in the order in which they will be called.
        """
        for hook in hooks:
            if hook is None:
                continue
            if not isinstance(hook, HookBase):
                raise UserTypeError(f"A hook must be a HookBase, got {type(hook).__name__}: {hook!r}")
            # A strong reference would be a cycle, and keep models alive on the GPU after their trainer is
            # gone.
            hook.trainer = weakref.proxy(self)
            self._hooks.append(hook)

    def train(self, start_iter: int, max_iter: int) -> None:
        """Train from `start_iter` (included) to `max_iter` (excluded)."""
        self.iter = self.start_iter = start_iter
        self.max_iter = max_iter
        if start_iter < max_iter:
            logger.info("Training from iteration %d to %d", start_iter, max_iter)
        else:
            logger.warning(self._describe_empty_run())

        with EventStorage(start_iter) as self.storage:
            try:
                self.before_train()
                while self.iter < max_iter:
                    self.before_step()
                    self.run_step()
                    self.after_step()
                    self.iter += 1
            except Exception as error:
                logger.error(
                    "Training stopped in iteration %d: %s",
                    self.iter,
                    describe_error(error),
                    exc_info=True,  # the console leaves it out where the user can mend the error
                )
                raise
            finally:
                self.after_train()

    def _describe_empty_run(self) -> str:
        return (
            f"Nothing is trained: the run would start at iteration {self.start_iter}, and ends before "
            f"iteration {self.max_iter}."
        )

    def before_train(self) -> None:
        for hook in self._hooks:
            hook.before_train()

    def after_train(self) -> None:
        self.storage.iter = self.iter
        errors: list[Exception] = []
        for hook in self._hooks:
            # A hook that fails must not keep the writers behind it from flushing.
            try:
                hook.after_train()
            except Exception as error:
                logger.error(
                    "%s failed after training: %s", type(hook).__name__, describe_error(error), exc_info=True
                )
                errors.append(error)
        if errors:
            raise errors[0]

    def before_step(self) -> None:
        # Hooks may have put the storage elsewhere; events of this iteration belong to this iteration.
        self.storage.iter = self.iter
        for hook in self._hooks:
            hook.before_step()

    def after_backward(self) -> None:
        for hook in self._hooks:
            hook.after_backward()
        if self.outer is not None:
            self.outer.after_backward()

    def after_step(self) -> None:
        for hook in self._hooks:
            hook.after_step()

    def run_step(self) -> None:
        """Do one iteration."""
        raise UserNotImplementedError(f"{type(self).__name__} must implement run_step()")

    def state_dict(self) -> dict[str, Any]:
        """Return the iteration and the hooks' state by class name; of two hooks of a class, the first's."""
        state: dict[str, Any] = {"iteration": self.iter}
        hook_states: dict[str, Any] = {}
        for hook in self._hooks:
            name = type(hook).__qualname__
            hook_state = hook.state_dict()
            if hook_state and name not in hook_states:
                hook_states[name] = hook_state
        if hook_states:
            state["hooks"] = hook_states
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` returned: training goes on behind the stored iteration."""
        self.iter = state_dict["iteration"]
        for name, hook_state in state_dict.get("hooks", {}).items():
            hook = next((hook for hook in self._hooks if type(hook).__qualname__ == name), None)
            if hook is None or not hasattr(hook, "load_state_dict"):
                logger.warning(
                    "The checkpoint holds the state of a hook %r; no such hook takes it here.", name
                )
                continue
            hook.load_state_dict(hook_state)
