"""Counts of what a hub did, for Prometheus."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Metrics:
    """Counts since the hub was started.

    Attributes:
        answers: Answers, by the method of the request and the status.
        uploads: Uploads that arrived whole.
        received: Bytes of uploads.
    """

    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    uploads: int = 0
    received: int = 0

    def text(self, *, packing: int, waiting: int, repositories: int) -> str:
        """Return them in the text format of Prometheus, with what there is now."""
        lines = [
            "# TYPE flistfs_hub_answers_total counter",
            *(
                f'flistfs_hub_answers_total{{method="{method}",status="{status}"}} {count}'
                for (method, status), count in sorted(self.answers.items())
            ),
        ]
        for name, kind, value in (
            ("uploads_total", "counter", self.uploads),
            ("received_bytes_total", "counter", self.received),
            ("uploads_packing", "gauge", packing),
            ("uploads_waiting", "gauge", waiting),
            ("repositories", "gauge", repositories),
        ):
            lines += [f"# TYPE flistfs_hub_{name} {kind}", f"flistfs_hub_{name} {value}"]
        return "\n".join(lines) + "\n"
