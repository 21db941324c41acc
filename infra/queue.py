"""SQS for the scheduled function under `sam local`: moto in a container, with the queue."""

import threading

import boto3
from moto.server import ThreadedMotoServer

from infra.environment import keep_to_this_machine

PORT = 9324


def main() -> None:
    # The container publishes no port, so only its own network reaches the server.
    server = ThreadedMotoServer("0.0.0.0", PORT)  # noqa: S104
    server.start()
    keep_to_this_machine()
    boto3.client("sqs", endpoint_url=f"http://127.0.0.1:{PORT}").create_queue(QueueName="rewards")
    print("SQS answers", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
