"""What a GPU does with the engine, measured within ten minutes: `python -m benchmarks.gpu`."""
