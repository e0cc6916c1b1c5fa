"""Tables in, tables and figures out; nothing here imports torch or mlflow."""
