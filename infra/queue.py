"""SQS for the scheduled function under `sam local`: moto, in a container, with the queue that the function is told."""

import threading

import boto3
from moto.server import ThreadedMotoServer

from infra.environment import keep_to_this_machine

PORT = 9324


def main() -> None:
    server = ThreadedMotoServer("0.0.0.0", PORT)  # noqa: S104  # of its container; the port is published nowhere
    server.start()
    keep_to_this_machine()
    boto3.client("sqs", endpoint_url=f"http://127.0.0.1:{PORT}").create_queue(QueueName="rewards")
    print("SQS answers", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
