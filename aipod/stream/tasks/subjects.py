"""Subjects and patterns of subjects, by the rules of NATS.

A subject is tokens with dots between them. In a pattern, ``*`` stands for one token and ``>``, at the end, for one or
more. (https://docs.nats.io/nats-concepts/subjects)
"""

from __future__ import annotations

__all__ = ["overlap", "problem_of"]

MAX_SUBJECT = 1024


def problem_of(subject: str, *, wildcards: bool) -> str | None:
    """Say what is wrong with a subject, or a pattern where ``wildcards`` are allowed; None if nothing is."""
    tokens = subject.split(".")
    faults = {
        "it is empty": not subject,
        f"it is longer than {MAX_SUBJECT} characters": len(subject) > MAX_SUBJECT,
        "it has a space or a control character in it": not subject.isprintable() or " " in subject,
        "it has an empty token: a dot at its beginning or its end, or two together": "" in tokens,
        "wildcards have no place here": not wildcards and bool({"*", ">"} & set(tokens)),
        "'>' can only be the last token": ">" in tokens[:-1],
        "a wildcard is a token of its own: '*' for one, '>' for the rest": any(
            len(token) > 1 and ("*" in token or ">" in token) for token in tokens
        ),
    }
    return next((sentence for sentence, wrong in faults.items() if wrong), None)


def overlap(one: str, other: str) -> bool:
    """Whether some subject fits both patterns."""
    left, right = one.split("."), other.split(".")
    for mine, its in zip(left, right, strict=False):
        if ">" in (mine, its):
            return True
        if mine != its and "*" not in (mine, its):
            return False
    return len(left) == len(right)
