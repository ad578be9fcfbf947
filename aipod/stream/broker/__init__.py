"""The broker's side of a task: connection, consumer, what is taken in, and who may take it."""
