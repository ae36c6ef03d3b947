"""The commands on jobs of tasks: `pgflow job …`."""

from pgflow.cli.lazy_group import LazyCommand, LazyGroup

__all__ = ["group"]

COMMANDS = {
    "list": LazyCommand("pgflow.cli.jobs.list_:command", "List jobs, newest first."),
    "show": LazyCommand("pgflow.cli.jobs.show:command", "Show a job, its arguments, its attempts and its output."),
    "why": LazyCommand("pgflow.cli.overview.why:job_command", "Explain why a job waits."),
    "retry": LazyCommand("pgflow.cli.jobs.changes:retry", "Run failed or cancelled jobs once more."),
    "cancel": LazyCommand("pgflow.cli.jobs.changes:cancel", "Cancel jobs that have not ended."),
    "run-now": LazyCommand("pgflow.cli.jobs.changes:run_now", "Run jobs now that are scheduled for later."),
    "complete": LazyCommand("pgflow.cli.jobs.changes:complete", "Complete a job that waits for an operator."),
    "fail": LazyCommand("pgflow.cli.jobs.changes:fail", "Fail jobs that wait for an operator."),
    "move": LazyCommand("pgflow.cli.jobs.changes:move", "Move jobs to another queue or priority."),
    "delete": LazyCommand("pgflow.cli.jobs.changes:delete", "Delete jobs that do not run."),
}

group = LazyGroup(
    "job",
    lazy=COMMANDS,
    help="List, show, retry, cancel, move or delete jobs: the executions of tasks.",
    epilog="Run pgflow job COMMAND --help for help on a command.",
)
