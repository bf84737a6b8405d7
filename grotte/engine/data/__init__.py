"""The data plane: commands and files of one sandbox, over Connect RPC and plain HTTP."""
