"""What the workers told, gathered: jobs, errors, wrong bytes, times. One thread."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field

_EXAMPLES = 30


@dataclass
class Kind:
    """Everything of one job or one single operation."""

    done: int = 0
    compared: int = 0
    seconds: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)

    @property
    def worst(self) -> float:
        """The longest, in seconds."""
        return max(self.seconds, default=0.0)

    def share(self, part: float) -> float:
        """The time in seconds that this part of all stayed within."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else 0.0


@dataclass
class Findings:
    """What was found so far."""

    kinds: dict[str, Kind] = field(default_factory=lambda: defaultdict(Kind))
    examples: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)
    slow: list[str] = field(default_factory=list)  # longer than two seconds after Ctrl-C
    broken: list[str] = field(default_factory=list)  # of the soak itself
    facts: dict[str, str] = field(default_factory=dict)

    def ended(self, job: str, seconds: float, compared: int, outcome: str, detail: str, when: str) -> None:
        """A job ended: with "" or an errno's name, "wrong" or "stuck"."""
        kind = self.kinds[job]
        kind.done += 1
        kind.compared += compared
        kind.seconds.append(seconds)
        text = f"{when} {job} after {seconds:.1f} s: {detail}"
        if outcome == "wrong":
            self.wrong.append(text)
        elif outcome == "stuck":
            self.stuck.append(text)
        elif outcome:
            kind.errors[outcome] += 1
            if len(self.examples) < _EXAMPLES:
                self.examples.append(f"{outcome} {text}")

    def timed(self, kind: str, seconds: list[float]) -> None:
        """Single operations within a job."""
        self.kinds[kind].done += len(seconds)
        self.kinds[kind].seconds += seconds

    def fact(self, name: str, digest: str, when: str) -> None:
        """Something that has to be the same every time."""
        if self.facts.setdefault(name, digest) != digest:
            self.wrong.append(f"{when} {name} has other bytes than before")

    @property
    def jobs(self) -> int:
        """Jobs done."""
        return sum(kind.done for name, kind in self.kinds.items() if not name.startswith("("))

    @property
    def compared(self) -> int:
        """Bytes compared."""
        return sum(kind.compared for kind in self.kinds.values())

    @property
    def errors(self) -> Counter[str]:
        """All errors by errno."""
        total: Counter[str] = Counter()
        for kind in self.kinds.values():
            total.update(kind.errors)
        return total
