import pytest

from bfpo.engine.trainable import select_trainable
from bfpo.errors import BfpoError
from models import tiny_llama


def test_only_matching_weights_train():
    model = tiny_llama()
    select_trainable(model, "down_proj")
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert trained == [f"model.layers.{layer}.mlp.down_proj.weight" for layer in range(2)]


def test_all_leaves_the_model_as_it_is():
    model = tiny_llama()
    select_trainable(model, "all")
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize(("pattern", "message"), [("no_such_layer", "matches no parameter"), ("(", "not a regular")])
def test_a_pattern_that_cannot_be_meant_is_refused(pattern, message):
    with pytest.raises(BfpoError, match=message):
        select_trainable(tiny_llama(), pattern)
