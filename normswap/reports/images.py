"""Which outputs are images, for reports that can show them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from normswap.layer import Array
from normswap.norms.rounding import UNIT_ROUNDOFF
from normswap.report import Check, Picture

__all__ = ["is_image", "pictures_of"]

_SAMPLES = 4  # shown of a batch


def pictures_of(
    expected: Mapping[str, Array], found: Mapping[str, Mapping[str, Array]], checks: Sequence[Check]
) -> list[Picture]:
    """Take the outputs that are images, some samples each.

    Args:
        expected: Outputs of the original under the target's meaning, by name.
        found: Outputs of the converted model, by how it was run, then by name.
        checks: What was compared of them, named ``output (how)``.
    """
    bounds = {check.name: check.bound for check in checks}
    return [
        # Copies: a view would keep the whole batch in memory as long as the report lives.
        Picture(
            name,
            how,
            value[:_SAMPLES].copy(),
            outputs[name][:_SAMPLES].copy(),
            bounds.get(f"{name} ({how})") if _is_floating(value) else None,  # that of integers is a share of elements
        )
        for how, outputs in found.items()
        for name, value in expected.items()
        if is_image(value) and is_image(outputs[name]) and outputs[name].shape == value.shape
    ]


def is_image(value: Array) -> bool:
    """Whether an array is (N, 1 or 3, H, W), with more than a line of pixels each way."""
    return (
        value.ndim == 4
        and value.shape[0] > 0
        and value.shape[1] in (1, 3)
        and min(value.shape[2:]) > 1
        and (value.dtype.kind in "iu" or _is_floating(value))
    )


def _is_floating(value: Array) -> bool:
    return value.dtype.kind == "f" or value.dtype.name in UNIT_ROUNDOFF  # bfloat16 is of no kind of NumPy's
