"""Budget alerts on their way to a webhook: one at a time, on a thread, because the other end may take its time."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait

from penstock.proxy.alerts import Alerts, payload
from penstock.proxy.log import Log
from penstock.proxy.store import Alert, Row

TIMEOUT_S = 10.0
STOP_S = 2.0


def poster(url: str) -> Callable[[dict[str, object]], None]:
    """What sends JSON there and returns when it was taken (2xx); raises OSError in words that do not hold the URL."""

    def post(message: dict[str, object]) -> None:
        import httpx  # only the process that sends pays for it, when it sends

        try:
            status = httpx.post(url, json=message, timeout=TIMEOUT_S).status_code
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise OSError(f"{type(error).__name__}: {error}") from None
        if status >= 300:
            raise OSError(f"it answered {status}")

    return post


class Messenger:
    """Budget alerts on their way to a webhook, one at a time. post: sends JSON and blocks; raises OSError."""

    def __init__(self, alerts: Alerts, post: Callable[[dict[str, object]], None], log: Log) -> None:
        self._alerts = alerts
        self._post = post
        self._log = log
        self._thread = ThreadPoolExecutor(1, "penstock-webhook")
        self._sending: tuple[Alert, Future[None]] | None = None
        self._stopped = False

    def note(self, rows: list[Row], new: int, wall_s: float) -> None:
        """Rows the store has now; `new` of them it did not have before."""
        if new < len(rows):
            self._alerts.reload()
        for alert in self._alerts.note(rows, wall_s):
            self._log.event("warning", "a budget is nearly spent", **payload(alert))

    def step(self, now_s: float, wall_s: float) -> None:
        """See how the last one went, begin the next."""
        self.note([], 0, wall_s)
        if self._sending is not None and self._sending[1].done():
            (alert, future), self._sending = self._sending, None
            self._ended(alert, future, now_s, wall_s)
        if self._sending is None and not self._stopped and (waiting := self._alerts.next(now_s)) is not None:
            self._sending = waiting, self._thread.submit(self._post, payload(waiting))

    def stop(self) -> None:
        """Begin no more, and give the one on its way a moment; what is not sent is sent after the next start."""
        self._stopped = True
        if self._sending is not None:
            wait([self._sending[1]], timeout=STOP_S)
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _ended(self, alert: Alert, future: Future[None], now_s: float, wall_s: float) -> None:
        try:
            future.result()
        except OSError as error:
            again_s = self._alerts.failed(now_s)
            self._log.event("warning", "the webhook failed", detail=str(error), retryAfter=again_s)
        else:
            self._alerts.sent(alert, wall_s)
