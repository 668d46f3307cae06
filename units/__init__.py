"""The library of units, imported as veloflow.units: loaders, layers, gradient descent, decision."""

if __name__ == "units":
    raise ImportError(
        "this folder is imported as 'veloflow.units': as plain 'units' each module would load "
        "twice under two names; write 'from veloflow.units import ...'"
    )
