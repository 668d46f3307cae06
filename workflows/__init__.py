"""Runnable definitions, imported as veloflow.workflows: examples to copy, and acceptance tests."""

if __name__ == "workflows":
    raise ImportError(
        "this folder is imported as 'veloflow.workflows': as plain 'workflows' each module would "
        "load twice under two names; write 'from veloflow.workflows import ...'"
    )

__all__: list[str] = []  # definitions are found by name, and loaded one at a time
