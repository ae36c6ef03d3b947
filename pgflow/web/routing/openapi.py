"""Describe the API: one operation for each page and each action, from their pydantic models."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from pgflow.web.routing.action import Action, Done
from pgflow.web.routing.page import Page, Problem
from pgflow.web.security.access import RIGHTS

__all__ = ["openapi"]

PARAMETER = re.compile(r"{(\w+)(?::\w+)?}")
REFERENCE = "#/components/schemas/{model}"
PROBLEMS = {"400": "A value is wrong", "401": "Not signed in", "403": "A right is missing", "404": "Not found"}


def openapi(
    pages: Sequence[Page[Any]], actions: Sequence[Action[Any, Any]], prefix: str, version: str
) -> dict[str, Any]:
    """Return the OpenAPI document of these pages and actions, mounted at `prefix`."""
    models: set[type[BaseModel]] = {Done, Problem}
    models |= {page.model for page in pages} | {action.input for action in actions}
    listed = sorted(models, key=lambda each: each.__name__)
    schemas, shared = models_json_schema([(model, "serialization") for model in listed], ref_template=REFERENCE)
    named = {model: schema for (model, _), schema in schemas.items()}
    paths: dict[str, Any] = {}
    for page in pages:
        operation = {
            "operationId": page.name,
            "summary": page.title,
            "tags": ["pages"],
            "parameters": _parameters(page.path, page.params),
            "responses": _responses(named[page.model], named[Problem]),
            "x-right": page.right,
        }
        paths.setdefault(_plain(page.path), {})["get"] = operation
    for action in actions:
        operation = {
            "operationId": action.name,
            "summary": action.title,
            "description": f"Needs the right {action.right!r}: {RIGHTS[action.right].lower()}.",
            "tags": ["actions"],
            "parameters": _parameters(action.path, action.params),
            "requestBody": {"content": {"application/json": {"schema": named[action.input]}}},
            "responses": _responses(named[Done], named[Problem]),
            "x-right": action.right,
        }
        paths.setdefault(_plain(action.path), {})["post"] = operation
    return {
        "openapi": "3.1.0",
        "info": {"title": "pgflow", "version": version, "description": "What the pages of the dashboard show and do."},
        "servers": [{"url": f"{prefix}/api/v1"}],
        "paths": paths,
        "components": {
            "schemas": shared.get("$defs", {}),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "basic": {"type": "http", "scheme": "basic"},
            },
        },
        "security": [{"bearer": []}, {"basic": []}, {}],
    }


def _plain(path: str) -> str:
    return PARAMETER.sub(r"{\1}", path)


def _parameters(path: str, params: Any) -> list[dict[str, Any]]:
    in_path = PARAMETER.findall(path)
    schema = params.model_json_schema(ref_template=REFERENCE)
    return [
        {
            "name": name,
            "in": "path" if name in in_path else "query",
            "required": name in in_path,
            "schema": {key: value for key, value in each.items() if key not in ("title", "description")},
            **({"description": each["description"]} if "description" in each else {}),
        }
        for name, each in schema.get("properties", {}).items()
    ]


def _responses(answer: dict[str, Any], problem: dict[str, Any]) -> dict[str, Any]:
    refused = {"type": "object", "properties": {"problem": problem}, "required": ["problem"]}
    return {
        "200": {"description": "Done", "content": {"application/json": {"schema": answer}}},
        **{
            status: {"description": text, "content": {"application/json": {"schema": refused}}}
            for status, text in PROBLEMS.items()
        },
    }
