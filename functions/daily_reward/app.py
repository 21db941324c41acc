"""The Example App's daily rewards. Lambda calls `handler` for the schedule and for the queue."""

from functions import startup  # isort: split

from functions.daily_reward.function import create_function
from functions.example_app.operations import ExampleAppOperations

__all__ = ["handler"]

handler = create_function(ExampleAppOperations)
startup.finish_startup()
