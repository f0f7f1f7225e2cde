"""Judges that judge an answer by its last digit, and how many exchanges they were asked about."""

import queue
import threading
from collections import deque
from dataclasses import dataclass, field

from bfpo.judges import Exchange, Verdict
from bfpo.judges.unjudged import NO_REPLY, around_empty, unjudged


@dataclass
class Counting:
    """Judges an answer safe if it ends in an even digit, and records its requests."""

    judge_id: str = "counting"
    template_digest: str = ""
    asked: list = field(default_factory=list)
    failing: frozenset = frozenset()

    def judge(self, exchanges):
        return around_empty(self, exchanges, self._judge)

    def _judge(self, exchanges):
        self.asked += [exchange.answer for exchange in exchanges]
        return [self._verdict(exchange) for exchange in exchanges]

    def _verdict(self, exchange):
        if exchange.answer in self.failing:
            return unjudged(self, NO_REPLY, raw="[HTTP 500]")
        label = "safe" if int(exchange.answer[-1]) % 2 == 0 else "unsafe"
        return Verdict(label, 1.0 if label == "safe" else 0.0, raw=exchange.answer, judge_id=self.judge_id)


def exchanges(count):
    return [Exchange("q", str(n)) for n in range(count)]


class Ahead(Counting):
    """Reads some exchanges ahead, as a server's client does, and counts how often it is started."""

    starts = 0

    def stream(self, exchanges):
        self.starts += 1
        waiting = deque()
        for exchange in exchanges:
            waiting.append(self._verdict(exchange))
            if len(waiting) > 7:
                yield waiting.popleft()
        yield from waiting


class InAThread(Ahead):
    """Reads its exchanges in a thread of its own, as a client with an event loop may."""

    def stream(self, exchanges):
        read = queue.Queue(8)

        def feed():
            try:
                for exchange in exchanges:
                    read.put(exchange)
            finally:
                read.put(None)

        feeder = threading.Thread(target=feed)
        feeder.start()
        yield from super().stream(iter(read.get, None))
        feeder.join()
