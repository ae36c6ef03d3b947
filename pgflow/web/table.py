"""The route table: every page and every action of the dashboard.

A page or an action that is not listed here does not exist. To add one, write its module in `pages/` or `actions/`, and
add it to a tuple below; its endpoints, its resource in the API, its rights and its place in the navigation follow.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pgflow.web.actions import bulk, limit, queue, schedule, workflow
from pgflow.web.actions import instance as instance_actions
from pgflow.web.actions import task as task_actions
from pgflow.web.pages import (
    audit,
    guides,
    instance,
    instances,
    limits,
    overview,
    queues,
    schedules,
    system,
    task,
    tasks,
    workers,
    workflows,
)
from pgflow.web.routing.action import Action
from pgflow.web.routing.page import Page

__all__ = ["ACTIONS", "PAGES"]

PAGES: Sequence[Page[Any]] = (
    overview.PAGE,
    instances.PAGE,
    instance.RUN,
    instance.STEPS,
    instance.DATA,
    queues.PAGE,
    limits.PAGE,
    tasks.PAGE,
    task.PAGE,
    schedules.PAGE,
    workflows.PAGE,
    workers.PAGE,
    system.PAGE,
    audit.PAGE,
    guides.PAGE,
    guides.GUIDE,
)

ACTIONS: Sequence[Action[Any, Any]] = (
    *instance_actions.ACTIONS,
    *bulk.ACTIONS,
    *queue.ACTIONS,
    *limit.ACTIONS,
    *task_actions.ACTIONS,
    *schedule.ACTIONS,
    *workflow.ACTIONS,
)
