"""Pictures: the outputs of an end-to-end run that are images, for reports that can show them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from normswap.data.image_arrays import is_floating, is_image
from normswap.layer import Array
from normswap.report import Check, Picture

__all__ = ["pictures_of"]

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
            # The bound of integers is a share of elements.
            bounds.get(f"{name} ({how})") if is_floating(value) else None,
        )
        for how, outputs in found.items()
        for name, value in expected.items()
        if is_image(value) and is_image(outputs[name]) and outputs[name].shape == value.shape
    ]
