"""What the search for singletons prints: rows for people, one JSON object, or SARIF 2.1.0 for code hosts and editors.
Pure.
"""

import json
from typing import Any
from urllib.parse import quote

from apps.findings import Exit
from apps.rollout.singletons import RULES, Finding, Risk, SingletonReport, Unread

TITLE = "Singletons"
SARIF_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
LEVELS = {Risk.HIGH: "error", Risk.MEDIUM: "warning", Risk.LOW: "note"}


def exit_status(report: SingletonReport) -> Exit:
    """BROKEN with findings; without, only a search that has read every file may say KEPT."""
    if report.findings:
        return Exit.BROKEN
    return Exit.COULD_NOT_LOOK if report.unread else Exit.KEPT


def as_text(report: SingletonReport) -> str:
    """One row a finding, what could not be read, one sum line with what to do next."""
    places = [f"{found.path}:{found.line}" for found in report.findings]
    width = max(map(len, places), default=0)
    rows = [_row(found, place, width) for found, place in zip(report.findings, places, strict=True)]
    rows += [f"UNREAD  {unread.path}: {unread.why}" for unread in report.unread]
    return "\n".join([*rows, _sum(report)])


def as_json(report: SingletonReport) -> str:
    """The same facts as one JSON object."""
    return json.dumps(
        {
            "title": TITLE,
            "root": report.root,
            "exit": int(exit_status(report)),
            "files": report.files,
            "counts": {risk.name.lower(): report.count(risk) for risk in Risk},
            "findings": [
                {
                    "risk": found.risk.name.lower(),
                    "kind": found.kind.value,
                    "path": found.path,
                    "line": found.line,
                    "name": found.name,
                    "detail": found.detail,
                    "why": found.rule.why,
                    "instead": found.rule.instead,
                }
                for found in report.findings
            ],
            "unread": [{"path": unread.path, "why": unread.why} for unread in report.unread],
        }
    )


def as_sarif(report: SingletonReport, version: str) -> str:
    """One run of SARIF 2.1.0; paths are relative to the folder that was searched."""
    kinds = list(RULES)
    rules = [
        {
            "id": kind.value,
            "shortDescription": {"text": rule.why},
            "help": {"text": rule.instead},
            "defaultConfiguration": {"level": LEVELS[rule.risk]},
        }
        for kind, rule in RULES.items()
    ]
    run = {
        "tool": {"driver": {"name": "audit_singletons", "version": version, "rules": rules}},
        "columnKind": "unicodeCodePoints",
        "results": [_result(found, kinds.index(found.kind)) for found in report.findings],
        "invocations": [
            {
                "executionSuccessful": True,
                "toolExecutionNotifications": [
                    {
                        "level": "warning",
                        "message": {"text": f"not read: {unread.why}"},
                        "locations": [_at(unread.path)],
                    }
                    for unread in report.unread
                ],
            }
        ],
    }
    return json.dumps({"$schema": SARIF_SCHEMA, "version": "2.1.0", "runs": [run]})


def _row(found: Finding, place: str, width: int) -> str:
    detail = f" ({found.detail})" if found.detail else ""
    return f"{found.risk.name:<6}  {place:<{width}}  {found.kind}  {found.name}{detail}"


def _sum(report: SingletonReport) -> str:
    counts = ", ".join(f"{report.count(risk)} {risk.name.lower()}" for risk in reversed(Risk))
    text = f"{TITLE}: {counts} in {report.files} files"
    text += f", {len(report.unread)} not read." if report.unread else "."
    if not report.findings:
        return text
    first = report.findings[0]
    return f"{text}  Next: {first.name} in {first.path}: {first.rule.why}; {first.rule.instead}."


def _result(found: Finding, rule_index: int) -> dict[str, Any]:
    detail = f" ({found.detail})" if found.detail else ""
    return {
        "ruleId": found.kind.value,
        "ruleIndex": rule_index,
        "level": LEVELS[found.risk],
        "message": {"text": f"{found.name}{detail}: {found.rule.why}. Instead: {found.rule.instead}."},
        "locations": [_at(found.path, found.line)],
        "partialFingerprints": {"sharedState/v1": f"{found.kind}:{found.path}:{found.name}"},
    }


def _notice(unread: Unread) -> dict[str, Any]:
    return {"level": "warning", "message": {"text": f"not read: {unread.why}"}, "locations": [_at(unread.path)]}


def _at(path: str, line: int = 1) -> dict[str, Any]:
    return {"physicalLocation": {"artifactLocation": {"uri": quote(path)}, "region": {"startLine": line}}}
