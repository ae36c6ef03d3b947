"""The groups of commands by subject. Most of their commands have a short form: `pgflow start` is `instance start`."""

from pgflow.cli.lazy_group import DefaultGroup, LazyCommand, LazyGroup

__all__ = ["FORMS", "db", "instance", "task", "worker"]

INSTANCE = {
    "start": LazyCommand("pgflow.cli.instances.start:command", "Start an instance of a workflow."),
    "list": LazyCommand("pgflow.cli.instances.list_:command", "List instances, newest first."),
    "show": LazyCommand("pgflow.cli.instances.show:command", "Show an instance, its history and what it waits for."),
    "why": LazyCommand("pgflow.cli.overview.why:command", "Explain why an instance waits, branch by branch."),
    "jobs": LazyCommand(
        "pgflow.cli.instances.jobs:command", "List live jobs of workflows: ready, running, scheduled or parked."
    ),
    "resume": LazyCommand("pgflow.cli.instances.resume:command", "Send a signal to an instance."),
    "unschedule": LazyCommand("pgflow.cli.instances.unschedule:command", "Cancel a scheduled signal."),
    "cancel": LazyCommand("pgflow.cli.instances.cancel:command", "Cancel an instance."),
    "retry": LazyCommand("pgflow.cli.instances.retry:command", "Retry a failed instance, or its paused steps."),
    "complete-step": LazyCommand("pgflow.cli.instances.steps:complete", "Complete a step that waits for an operator."),
    "fail-step": LazyCommand("pgflow.cli.instances.steps:fail", "Fail a step that waits for an operator."),
    "bulk": LazyCommand(
        "pgflow.cli.operator.bulk:command", "Retry, cancel, move or delete all instances that a filter matches."
    ),
}
TASK = {
    "enqueue": LazyCommand("pgflow.cli.jobs.enqueue:command", "Enqueue a task."),
    "list": LazyCommand("pgflow.cli.overview.tasks:command", "List the tasks that apps have registered."),
}
WORKER = {
    "run": LazyCommand("pgflow.cli.operations.worker:command", "Run a worker: claim jobs and run their steps."),
    "list": LazyCommand("pgflow.cli.overview.workers:command", "List the workers and how many jobs they hold."),
}
DB = {
    "migrate": LazyCommand("pgflow.cli.operations.migrate:command", "Install or upgrade pgflow's schema."),
    "roles": LazyCommand(
        "pgflow.cli.operations.roles:command",
        "Grant roles the rights of a client, worker, dashboard or operator.",
    ),
    "doctor": LazyCommand("pgflow.cli.operations.doctor:command", "Check a database and its workers for problems."),
    "prune": LazyCommand("pgflow.cli.instances.prune:command", "Delete old finished instances."),
    "payloads": LazyCommand("pgflow.cli.operations.payloads:command", "Maintain the payload store of an app."),
    "bench": LazyCommand(
        "pgflow.cli.operations.bench:command", "Measure throughput, latency and the database cost of a step."
    ),
}
# The short forms: each is the command of that name in its group.
FORMS = {"instance": INSTANCE, "task": {"enqueue": TASK["enqueue"]}, "db": DB}

EPILOG = "Run pgflow {0} COMMAND --help for help on a command."

instance = LazyGroup(
    "instance",
    lazy=INSTANCE,
    help="Start, find, steer and explain instances of workflows.",
    epilog=EPILOG.format("instance"),
)
task = LazyGroup(
    "task",
    lazy=TASK,
    help="Enqueue tasks, and list those that apps have registered. Their executions: pgflow job.",
    epilog=EPILOG.format("task"),
)
worker = DefaultGroup(
    "worker",
    lazy=WORKER,
    default="run",
    help="Run a worker, or list the workers. Without a command: run.",
    epilog=EPILOG.format("worker"),
)
db = LazyGroup(
    "db",
    lazy=DB,
    help="Install, upgrade, check and measure pgflow in a database.",
    epilog=EPILOG.format("db"),
)
