"""Waiting for things, never without an end."""
import time


class TimedOut(AssertionError):
    pass


def wait_until(condition, what, seconds=60.0, interval=0.02):
    """Calls condition() until it returns something true; returns that. TimedOut names `what`."""
    end = time.monotonic() + seconds
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > end:
            raise TimedOut(f"waited {seconds:g} s in vain for: {what}")
        time.sleep(interval)
