"""LitServe: one API server process and one worker process with the model.

Batches, where they are allowed, are collected for up to 50 ms.
"""

import os

import litserve  # type: ignore[import-not-found,unused-ignore]

from benchmarks.http.peers.stock import MAX_BATCH, MAX_WAIT_S, Ask, StockModel

__all__ = ["Painter"]


class Painter(litserve.LitAPI):  # type: ignore[misc,unused-ignore]
    """The documented four steps."""

    def setup(self, device: str) -> None:  # noqa: ARG002
        """Load the model in the worker."""
        self._model = StockModel()

    def decode_request(self, request: dict[str, object]) -> Ask:
        """Read the body."""
        return Ask.model_validate(request)

    def batch(self, inputs: list[Ask]) -> list[Ask]:
        """Leave the batch a list."""
        return inputs

    def predict(self, inputs: list[Ask] | Ask) -> list[str] | str:
        """Paint one batch, or one request when batches are switched off."""
        if isinstance(inputs, Ask):
            return self._model.paint([inputs])[0]
        return self._model.paint(inputs)

    def unbatch(self, output: list[str]) -> list[str]:
        """Leave the results a list."""
        return output

    def encode_response(self, output: str) -> dict[str, str]:
        """Write the reply."""
        return {"image": output}


def main() -> None:
    """Serve until the process is asked to stop."""
    is_batched = MAX_BATCH > 1
    painter = Painter(max_batch_size=MAX_BATCH, batch_timeout=MAX_WAIT_S if is_batched else 0.0)
    server = litserve.LitServer(painter, accelerator="cpu", workers_per_device=1, timeout=False)
    port = int(os.environ["BENCH_PORT"])
    server.run(host="127.0.0.1", port=port, generate_client_file=False, log_level="warning")


if __name__ == "__main__":
    main()
