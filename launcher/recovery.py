"""The server side of SkyPilot: a plugin that registers the recovery strategy VLAUNCH, and the strategy, which carries
out what launcher/steering.py decides. It runs in SkyPilot's API server and its controllers, and needs no torch.

Named in the server's `~/.sky/plugins.yaml` (`vlaunch plugin install`) as `launcher.recovery.Plugin`.
"""

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import msgspec
from sky import exceptions, global_user_state, sky_logging
from sky.jobs import recovery_strategy, scheduler, state
from sky.server import plugins
from sky.utils import context, registry, schemas

from checkpoints.stores import StoreError, open_store
from launcher.steering import Candidate, Rules, Steering, Stop, default_policy
from train.config import INTERRUPTED, read_recipe

STRATEGY = "VLAUNCH"
_LEAVE_SECONDS = 300.0
"""How long a trainer that was asked to leave may take before its machine is taken down under it."""
_TYPES = {"float": "number", "bool": "boolean"}

logger: logging.Logger = sky_logging.init_logger("sky.vlaunch")  # SkyPilot sends its own loggers to the job's log


class Plugin(plugins.BasePlugin):
    """Teaches a SkyPilot server the strategy and its keys."""

    name = "vlaunch"

    def install(self, extension_context: plugins.ExtensionContext) -> None:
        for field in msgspec.structs.fields(Rules):
            schemas.register_job_recovery_property(field.name, {"type": _TYPES[_plain(field.type)]})
        if STRATEGY.lower() not in registry.JOBS_RECOVERY_STRATEGY_REGISTRY:
            registry.JOBS_RECOVERY_STRATEGY_REGISTRY.type_register(name=STRATEGY)(Strategy)


class Strategy(recovery_strategy.EagerFailoverStrategyExecutor):
    """Asks what to do at the launch, at each recovery, and while the job runs. Where the run's store cannot be
    reached it does as EAGER_NEXT_REGION would."""

    _rules = Rules()
    _steering: Steering | None = None
    _ticking: asyncio.Task[None] | None = None
    _leaving = ""
    """Why the trainer was asked to leave; empty while it was not."""
    _failed = ""
    """How the task ended by itself, where it did."""

    def set_strategy_config(self, config: dict[str, Any]) -> None:
        self._rules = msgspec.convert(config, Rules)
        self._all = list(self.dag.tasks[0].resources)

    async def launch(self) -> float:
        if await self._take_up():
            try:
                return await self._steered(recovery=False)
            except StoreError as failure:
                self._say_unreachable(failure)
        self._aim(None)
        submitted: float = await super().launch()
        return submitted

    async def recover(self) -> float:
        await self._stop_ticking()
        await asyncio.to_thread(self._cleanup_cluster)
        if self._steering is not None or await self._take_up():
            try:
                await asyncio.to_thread(self._note_the_end)
                return await self._steered(recovery=True)
            except StoreError as failure:
                self._say_unreachable(failure)
        self._aim(None)
        submitted: float = await super().recover()
        self._start_ticking()
        return submitted

    def should_restart_on_failure(self, exit_codes: list[int] | None = None) -> bool:
        if not exit_codes and self._trained():
            # SkyPilot has read the job's end off a machine on its way out, and then the machine was gone.
            return True
        if INTERRUPTED not in (exit_codes or ()):
            self._failed = f"the task failed with exit code {', '.join(map(str, exit_codes or ())) or 'unknown'}"
        restart: bool = super().should_restart_on_failure(exit_codes)
        return restart

    def _trained(self) -> bool:
        """Whether the machine that is lost had come so far. One that had not may have failed in its setup, which a new
        one does not mend."""
        try:
            return self._steering is not None and self._steering.trained()
        except StoreError as failure:
            self._say_unreachable(failure)
            return False

    async def monitor_task(self, **_: Any) -> None:
        """SkyPilot's own monitor goes on; beside it the ticks begin."""
        self._start_ticking()

    async def _take_up(self) -> bool:
        """Read what there is of this run; whether the store let us."""
        try:
            self._steering = await asyncio.to_thread(self._begin)
        except StoreError as failure:
            self._say_unreachable(failure)
            return False
        return True

    def _begin(self) -> Steering:
        task = self.dag.tasks[0]
        self._lend_secrets()
        store = open_store(task.envs["VLAUNCH_STORE"]).inside(task.envs["VLAUNCH_RUN"])
        recipe = read_recipe(task.envs["VLAUNCH_RECIPE"])
        steering = Steering(
            task.envs["VLAUNCH_RUN"],
            store,
            rules=self._rules,
            candidates=[candidate for candidate, _ in self._known()],
            policy=default_policy(),
            save_every_seconds=recipe.checkpoints.longest_seconds,
        )
        with self._stops():
            steering.resume()
        return steering

    def _lend_secrets(self) -> None:
        """The task's own keys open its store here as they do on its machines. SkyPilot keeps such variables apart
        for each job of a controller."""
        task = self.dag.tasks[0]
        ours = context.get()
        if ours is None:
            return
        for name, value in task.envs_and_secrets.items():
            if name.startswith(("AWS_", "GOOGLE_")):
                plain = value.get_secret_value() if hasattr(value, "get_secret_value") else value
                ours.override_envs({name: plain})

    def _known(self) -> list[tuple[Candidate, Any]]:
        """The machines of the task that SkyPilot knows to exist, at the prices of its catalog."""
        nodes = self.dag.tasks[0].num_nodes
        found = []
        for each in self._all:
            assert each.cloud is not None  # the plan names one for each
            feasible = each.cloud.get_feasible_launchable_resources(each, num_nodes=nodes).resources_list
            if feasible:
                found.append((self._candidate(feasible[0]), each))
        return found

    def _candidate(self, resources: Any) -> Candidate:
        """Of a machine with its type."""
        place = "/".join(str(part) for part in (resources.cloud, resources.region, resources.zone) if part)
        usd = resources.get_cost(3600) * self.dag.tasks[0].num_nodes
        return Candidate(place=_lower_cloud(place), spot=resources.use_spot, usd_per_hour=usd)

    async def _steered(self, *, recovery: bool) -> float:
        """Do as we are told until a machine works."""
        steering = self._steering
        assert steering is not None
        waiting = False
        while True:
            with self._stops():
                decision, chosen = await asyncio.to_thread(steering.next_move)
            if chosen is None:
                if not waiting:
                    waiting = True
                    await self._wait_in_the_open(decision.reason)
                await asyncio.sleep(self._rules.tick_seconds)
                continue
            if waiting:
                waiting = False
                await state.set_restarting_async(self.job_id, self.task_id, recovery)
            logger.info(f"vlaunch: {chosen.words}: {decision.reason}")
            self._aim(chosen)
            submitted = await self._try(chosen, recovery=recovery)
            if submitted is not None:
                self._start_ticking()
                return submitted

    async def _try(self, chosen: Candidate, *, recovery: bool) -> float | None:
        """When the job was submitted to a machine there, None where there was none to be had.

        A first launch that cannot succeed anywhere (a cloud that is not enabled, no such zone) raises.
        """
        steering = self._steering
        assert steering is not None
        asked = steering.now()
        try:
            submitted: float | None = await self._launch(max_retry=1, raise_on_failure=not recovery, recovery=recovery)
        except exceptions.ManagedJobReachedMaxRetriesError:
            submitted = None
        if submitted is not None or await asyncio.to_thread(self._came_up, asked):
            await asyncio.to_thread(steering.started, chosen, asked)
        else:
            await asyncio.to_thread(steering.refused, chosen)
        if submitted is None:
            await asyncio.to_thread(steering.ended, "lost while it was set up", preempted=True)
        return submitted

    def _came_up(self, asked: float) -> bool:
        """Whether there was a machine since then, by SkyPilot's records: one that is lost while SkyPilot sets it up is
        paid for."""
        attempts = global_user_state.get_launch_attempts_for_cluster(self.cluster_name)
        return any(each.provision_start >= asked and each.instances_ready is not None for each in attempts)

    async def _wait_in_the_open(self, reason: str) -> None:
        """Give the place among the starting jobs to another, and show that we wait and why."""
        async with scheduler.scheduled_launch(self.job_id, self.starting, self.starting_lock, self.starting_signal):
            pass
        await state.set_backoff_pending_async(self.job_id, self.task_id, reason=f"vlaunch waits: {reason}")

    def _aim(self, chosen: Candidate | None) -> None:
        """Narrow the task to one machine of its list; None: all of them again."""
        aimed = self._all if chosen is None else [each for candidate, each in self._known() if candidate == chosen]
        self.dag.tasks[0].set_resources(aimed)

    def _start_ticking(self) -> None:
        if self._ticking is None or self._ticking.done():
            self._ticking = asyncio.create_task(self._tick_on())

    async def _stop_ticking(self) -> None:
        if self._ticking is not None:
            self._ticking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._ticking

    async def _tick_on(self) -> None:
        """While the job runs. Ends when the machine is to be left; SkyPilot's monitor then sees it go."""
        while True:
            await asyncio.sleep(self._rules.tick_seconds)
            status = await state.get_job_status_with_task_id_async(job_id=self.job_id, task_id=self.task_id)
            if self._steering is None and not await self._take_up():
                continue
            try:
                reason = await asyncio.to_thread(self._look, status)
            except StoreError as failure:
                self._say_unreachable(failure)
                reason = "budget" if self._steering is not None and self._steering.over_budget() else ""
            if status is None or status.is_terminal():
                return
            if reason:
                await self._leave(reason)
                return

    def _look(self, status: state.ManagedJobStatus | None) -> str:
        """Why the machine has to be left, empty where it stays."""
        steering = self._steering
        assert steering is not None
        if status is None or status.is_terminal():
            steering.over("finished" if status == state.ManagedJobStatus.SUCCEEDED else "stopped")
            return ""
        if status != state.ManagedJobStatus.RUNNING:
            return ""
        if steering.journal.machine() is None and self._launched_resources is not None:
            # It was started while the store could not be reached.
            steering.started(self._candidate(self._launched_resources), steering.now())
        if steering.over_budget():
            return "budget"
        decision = steering.tick()
        return "" if decision.action == "hold" else f"moved: {decision.reason}"

    async def _leave(self, reason: str) -> None:
        """By way of a checkpoint; and if the trainer does not go, without one."""
        steering = self._steering
        assert steering is not None
        self._leaving = reason
        try:
            await asyncio.to_thread(steering.ask_to_leave, reason)
            await asyncio.sleep(_LEAVE_SECONDS)
        except StoreError as failure:  # nor can the trainer save there
            self._say_unreachable(failure)
        logger.info("vlaunch: the trainer has not left; its machine is taken down")
        await asyncio.to_thread(self._cleanup_cluster)

    def _note_the_end(self) -> None:
        assert self._steering is not None
        reason, preempted = self._leaving or self._failed or "taken away", not (self._leaving or self._failed)
        self._leaving = self._failed = ""
        self._steering.ended(reason, preempted=preempted)

    @contextlib.contextmanager
    def _stops(self) -> Iterator[None]:
        """SkyPilot ends a job in its own words for it; its reason is ours."""
        try:
            yield
        except Stop as end:
            raise exceptions.ManagedJobReachedMaxRetriesError(str(end)) from None

    def _say_unreachable(self, failure: StoreError) -> None:
        why = f"the run's store cannot be reached, so SkyPilot's own EAGER_NEXT_REGION decides: {failure}"
        logger.warning(f"vlaunch: {why}")
        if self._steering is not None:
            self._steering.journal.unreachable(why)


def _plain(hint: Any) -> str:
    """`float` of `float | None`."""
    kinds = [kind.__name__ for kind in getattr(hint, "__args__", (hint,)) if kind is not type(None)]
    return str(kinds[0])


def _lower_cloud(place: str) -> str:
    cloud, slash, rest = place.partition("/")
    return cloud.lower() + slash + rest
