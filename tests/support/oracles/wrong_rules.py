"""Wrong rules of operators, each a slip that a rule may have: what the tests of the rules have to catch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

from normswap.algebra.errors import UnreadableError
from normswap.algebra.expressions import Expr
from normswap.algebra.layouts import aligned
from normswap.algebra.operator import Operator
from normswap.algebra.rules import elementwise, layout, normalizations, reductions, sizes
from normswap.algebra.rules_onnx import Rule
from normswap.algebra.values import Constant, Sizes, Tensor, Value

__all__ = ["WRONG"]

Change: TypeAlias = Callable[[Operator], Operator]


def of_changed(rule: Rule, change: Change) -> Rule:
    """A rule that sees another operator than there is."""
    return lambda operator: rule(change(operator))


def without(*names: str) -> Change:
    """Some attributes are overlooked, and inputs that later versions have for them."""
    return lambda operator: replace(
        operator, attributes={k: v for k, v in operator.attributes.items() if k not in names}
    )


def given(**attributes: Any) -> Change:
    """Some attributes are taken to be others."""
    return lambda operator: replace(operator, attributes={**operator.attributes, **attributes})


def swapped(one: int, two: int) -> Change:
    """Two inputs are taken one for the other."""

    def change(operator: Operator) -> Operator:
        inputs = [*operator.inputs, *[None] * (max(one, two) + 1 - len(operator.inputs))]
        inputs[one], inputs[two] = inputs[two], inputs[one]
        return replace(operator, inputs=tuple(inputs))

    return change


def first_inputs(count: int) -> Change:
    """Only the first inputs are seen."""
    return lambda operator: replace(operator, inputs=operator.inputs[:count])


def with_statistics(operator: Operator) -> Operator:
    """Gain and offset are taken for stored statistics too."""
    return replace(operator, inputs=(*operator.inputs, *operator.inputs[1:]))


def of_version(opset: int) -> Change:
    """It is taken for another version."""
    return lambda operator: replace(operator, opset=opset)


def then(rule: Rule, change: Callable[[Expr], Expr]) -> Rule:
    """A rule whose result is something else."""

    def wrong(operator: Operator) -> Value:
        value = rule(operator)
        if isinstance(value, Sizes):
            return replace(value, entries=tuple(change(entry) for entry in value.entries))
        tensor = operator.axes.tensor(value)
        return Tensor(change(tensor.expr), tensor.layout)

    return wrong


def doubled(value: Expr) -> Expr:
    return value + value


def rounded_division(operator: Operator) -> Value:
    """Sizes are divided the other way round."""
    return elementwise.quotient(swapped(0, 1)(operator)) if any_sizes(operator) else elementwise.quotient(operator)


def any_sizes(operator: Operator) -> bool:
    return any(isinstance(value, Sizes) for value in operator.inputs)


def total_of_sizes(operator: Operator) -> Value:
    """Sizes are multiplied where they are to be summed."""
    return reductions.product_of(operator) if any_sizes(operator) else reductions.sum_of(operator)


def mirrored(operator: Operator) -> Value:
    """Transpose by the inverse order."""
    tensor = operator.tensor()
    order = list(operator.attributes.get("perm") or reversed(range(tensor.rank)))
    return layout.transpose(given(perm=[order.index(place) for place in range(tensor.rank)])(operator))


def laid_at_the_front(operator: Operator) -> Value:
    """A vector is laid along the first dimensions, not the last."""
    one, two = operator.tensor(0), operator.tensor(1)
    short, long = sorted((one, two), key=lambda tensor: tensor.rank)
    padded = Tensor(short.expr, short.layout + ((),) * (long.rank - short.rank))
    try:
        exprs, found = aligned(operator.axes, padded, long)
    except UnreadableError:  # lengths differ there: it shows in squares alone
        return elementwise.total(operator)
    return Tensor(exprs[0] + exprs[1], found)


def unsqueezed_in_the_input(operator: Operator) -> Value:
    """Axes are counted in the input, not in the result."""
    tensor = operator.tensor()
    given = operator.integers("axes", 1) or ()
    groups = list(tensor.layout)
    for place in sorted((axis % max(tensor.rank, 1) for axis in given), reverse=True):
        groups.insert(place, ())
    return Tensor(tensor.expr, tuple(groups))


def squeezed_at_the_front(operator: Operator) -> Value:
    """As many dimensions as are to go are taken off the front."""
    value = layout.squeeze(operator)
    tensor = operator.tensor()
    assert isinstance(value, Tensor)
    return Tensor(value.expr, tensor.layout[tensor.rank - value.rank :])


def merged_backwards(operator: Operator) -> Value:
    """Axes that become one dimension are ordered the innermost first."""
    value = layout.reshape(operator)
    assert isinstance(value, Tensor)
    return Tensor(value.expr, tuple(tuple(reversed(group)) for group in value.layout))


def repeated_within(operator: Operator) -> Value:
    """Tile repeats each element, not the whole."""
    value = layout.tile(operator)
    assert isinstance(value, Tensor)
    return Tensor(value.expr, tuple(tuple(reversed(group)) for group in value.layout))


def split_the_other_way(operator: Operator) -> Value:
    """A split axis is taken with its inner part first."""
    value = layout.reshape(operator)
    assert isinstance(value, Tensor)
    return Tensor(value.expr, (*value.layout[:-2], value.layout[-1], value.layout[-2]))


def ones_for_lengths(operator: Operator) -> Value:
    """Shape takes every length for that of the first dimension."""
    value = sizes.shape(operator)
    assert isinstance(value, Sizes)
    return replace(value, entries=(value.entries[0],) * len(value.entries))


def next_entry(operator: Operator) -> Value:
    """Gather counts from one."""
    index = operator.value(1)
    assert isinstance(index, Constant)
    count = len(operator.axes.sizes(operator.value(0)).entries)
    moved = Constant((index.array + 1) % count, index.name)
    return sizes.gather(replace(operator, inputs=(operator.inputs[0], moved)))


def the_other(operator: Operator) -> Value:
    """Where takes the tensors one for the other."""
    return elementwise.chosen(swapped(1, 2)(operator))


def dropped(operator: Operator) -> Value:
    """Dropout scales as in training."""
    tensor = operator.tensor()
    return Tensor(doubled(tensor.expr), tensor.layout)


def rows_of_groups(operator: Operator) -> Value:
    """GroupNormalization of a single group."""
    return normalizations.group_normalization(given(num_groups=1)(operator))


def expanded_to_ones(operator: Operator) -> Value:
    """Expand gives the sum of what it repeats."""
    value = layout.expand(operator)
    tensor = operator.axes.tensor(value)
    fresh = [axis for group in tensor.layout for axis in group if axis.startswith("?")]
    return Tensor(tensor.expr * operator.axes.count(fresh), tensor.layout)


def root_first(operator: Operator) -> Value:
    """ReduceL2 without its root."""
    value = reductions.norm_of(operator)
    assert isinstance(value, Tensor)
    return Tensor(value.expr**2, value.layout)


def outside(operator: Operator) -> Value:
    """MeanVarianceNormalization over all axes but the last that it is given."""
    axes = tuple(operator.attributes.get("axes", (0, 2, 3)))
    return normalizations.mean_variance_normalization(given(axes=axes[:-1])(operator))


def _by_text(function: str) -> Rule:
    """A comparison for its opposite."""
    return lambda operator: elementwise.compared(replace(operator, op_type=function))


# What is wrong -> the case that shows it, the operator, and the rule.
WRONG: Mapping[str, tuple[str, tuple[str, str], Rule]] = {
    name: (case, ("", case.split(",")[0]), rule)
    for name, case, rule in (
        ("Abs is the identity", "Abs", elementwise.same),
        ("Add is Sub", "Add", elementwise.difference),
        ("Add lays a vector along the first dimensions", "Add", laid_at_the_front),
        ("Add, version 6, broadcasts as NumPy does", "Add, version 6", of_changed(elementwise.total, of_version(7))),
        ("Add, version 6, overlooks axis", "Add, version 6", of_changed(elementwise.total, without("axis"))),
        ("BatchNormalization takes gain for offset", "BatchNormalization, version 9",
         of_changed(normalizations.batch_normalization, swapped(1, 2))),
        ("BatchNormalization takes mean for variance", "BatchNormalization, version 14",
         of_changed(normalizations.batch_normalization, swapped(3, 4))),
        ("BatchNormalization has eps 1e-5 whatever is said", "BatchNormalization, version 14",
         of_changed(normalizations.batch_normalization, without("epsilon"))),
        ("BatchNormalization never trains", "BatchNormalization, version 15, training",
         of_changed(normalizations.batch_normalization, without("training_mode"))),
        ("BatchNormalization, version 7, looks for training_mode", "BatchNormalization, version 7, training",
         of_changed(normalizations.batch_normalization, of_version(14))),
        ("BatchNormalization, version 6, counts outputs", "BatchNormalization, version 6",
         of_changed(normalizations.batch_normalization, of_version(7))),
        ("BatchNormalization, version 6, overlooks is_test", "BatchNormalization, version 6",
         of_changed(normalizations.batch_normalization, without("is_test"))),
        ("Cast doubles", "Cast", then(elementwise.cast, doubled)),
        ("Clip takes min for max", "Clip", of_changed(elementwise.clipped, swapped(1, 2))),
        ("Clip overlooks attributes", "Clip", of_changed(elementwise.clipped, without("min", "max"))),
        ("Concat takes the first alone", "Concat", of_changed(sizes.concat, first_inputs(1))),
        ("Div is Mul", "Div", elementwise.product),
        ("Div, of sizes, is the other way round", "Div, of sizes", rounded_division),
        ("Dropout scales", "Dropout", dropped),
        ("Equal is Greater", "Equal", _by_text("GreaterOrEqual")),
        ("Expand sums", "Expand", expanded_to_ones),
        ("Flatten always at 1", "Flatten", of_changed(layout.flatten, without("axis"))),
        ("Gather counts from one", "Gather", next_entry),
        ("GlobalAveragePool sums", "GlobalAveragePool", of_changed(reductions.sum_of, given(axes=[2]))),
        ("Greater is Less", "Greater", _by_text("Less")),
        ("GreaterOrEqual is Less", "GreaterOrEqual", _by_text("Less")),
        ("GroupNormalization of one group", "GroupNormalization, version 21", rows_of_groups),
        ("GroupNormalization, version 21, has parameters of groups", "GroupNormalization, version 18",
         of_changed(normalizations.group_normalization, swapped(1, 2))),
        ("Identity negates", "Identity", elementwise.negated),
        ("InstanceNormalization over the batch too", "InstanceNormalization",
         of_changed(of_changed(normalizations.batch_normalization, given(training_mode=1)), with_statistics)),
        ("InstanceNormalization has eps 1e-5 whatever is said", "InstanceNormalization",
         of_changed(normalizations.instance_normalization, without("epsilon"))),
        ("LayerNormalization over the last axis alone", "LayerNormalization",
         of_changed(normalizations.layer_normalization, without("axis"))),
        ("Less is Greater", "Less", _by_text("Greater")),
        ("LessOrEqual is Greater", "LessOrEqual", _by_text("Greater")),
        ("Max is Min", "Max", lambda operator: elementwise.extreme(replace(operator, op_type="Min"))),
        ("Max of the first two", "Max", of_changed(elementwise.extreme, first_inputs(2))),
        ("MeanVarianceNormalization loses an axis", "MeanVarianceNormalization", outside),
        ("Min is Max", "Min", lambda operator: elementwise.extreme(replace(operator, op_type="Max"))),
        ("Mul is Div", "Mul", elementwise.quotient),
        ("Mul, version 6, broadcasts as NumPy does", "Mul, version 6", of_changed(elementwise.product, of_version(7))),
        ("Neg is the identity", "Neg", elementwise.same),
        ("Not is the identity", "Not", elementwise.same),
        ("Pow is the root", "Pow", elementwise.square_root),
        ("RMSNormalization takes the mean off", "RMSNormalization", normalizations.layer_normalization),
        ("Reciprocal is the identity", "Reciprocal", elementwise.same),
        ("ReduceL2 has no root", "ReduceL2", root_first),
        ("ReduceMean sums", "ReduceMean", reductions.sum_of),
        ("ReduceMean always keeps dimensions", "ReduceMean", of_changed(reductions.mean_of, without("keepdims"))),
        ("ReduceMean overlooks axes", "ReduceMean",
         of_changed(of_changed(reductions.mean_of, without("axes")), first_inputs(1))),
        ("ReduceMean reduces where nothing is to be reduced", "ReduceMean",
         of_changed(reductions.mean_of, without("noop_with_empty_axes"))),
        ("ReduceProd sums", "ReduceProd", reductions.sum_of),
        ("ReduceSum averages", "ReduceSum", reductions.mean_of),
        ("ReduceSum, of sizes, multiplies", "ReduceSum, of sizes", total_of_sizes),
        ("ReduceSumSquare does not square", "ReduceSumSquare", reductions.sum_of),
        ("Reshape merges backwards", "Reshape", merged_backwards),
        ("Reshape splits backwards", "Reshape, split", split_the_other_way),
        ("Shape has one length", "Shape, in part", ones_for_lengths),
        ("Shape overlooks start", "Shape, in part", of_changed(sizes.shape, without("start"))),
        ("Size is doubled", "Size", then(sizes.size, doubled)),
        ("Slice overlooks the step", "Slice", of_changed(sizes.slice_of, first_inputs(4))),
        ("Sqrt is the reciprocal", "Sqrt", elementwise.reciprocal),
        ("Squeeze takes the first dimensions", "Squeeze", squeezed_at_the_front),
        ("Sub is the other way round", "Sub", of_changed(elementwise.difference, swapped(0, 1))),
        ("Sub, version 6, overlooks axis", "Sub, version 6", of_changed(elementwise.difference, without("axis"))),
        ("Tile repeats each element", "Tile", repeated_within),
        ("Transpose goes back", "Transpose", mirrored),
        ("Unsqueeze counts in the input", "Unsqueeze", unsqueezed_in_the_input),
        ("Where is the other way round", "Where", the_other),
        ("Where, constant, is the other way round", "Where, constant", the_other),
    )
}  # fmt: skip
