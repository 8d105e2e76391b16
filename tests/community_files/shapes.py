"""Shapes by the names of tensors; a pair (dtype, shape) where one has a type of its own."""


def under(prefix, shapes):
    return {prefix + name: shape for name, shape in shapes.items()}


def affine(name, *shape):
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def of_type(dtype, shapes):
    """Give a type to all that have none of their own."""
    is_typed = {name: bool(said) and isinstance(said[0], str) for name, said in shapes.items()}
    return {n: said if is_typed[n] else (dtype, said) for n, said in shapes.items()}
