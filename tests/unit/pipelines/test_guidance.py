"""What is done to guided predictions, by the equations of the papers that `guidance` names."""

import pytest
import torch
from diffusers.models.attention_processor import Attention
from torch import nn

from serve_app.pipelines.guidance import Perturbation, guided, rescaled

SHARED = frozenset({"return_dict"})
MARK = "is_perturbed"


def rows(number, seed=0):
    return torch.randn(number, 2, 3, 3, generator=torch.Generator().manual_seed(seed))


class Denoiser:
    """Predicts three times the sample plus the text; minus the text in marked rows."""

    def __init__(self):
        self.calls = []

    def __call__(self, arguments):
        self.calls.append(arguments)
        marks = arguments[MARK] if MARK in arguments else torch.zeros(len(arguments["sample"])) > 0
        text = torch.where(marks, -arguments["text"], arguments["text"])
        return (3 * arguments["sample"] + text[:, None, None, None],)


@pytest.mark.parametrize("number", [1, 2], ids=["unguided", "guided"])
def test_guided_row_is_run_again_marked_and_all_move_away_from_it(number):
    """The row of the prompt is the last; in it marked and plain are two texts apart."""
    sample, text = rows(number), torch.tensor([5.0, 7.0])[:number]
    given = {"sample": sample, "text": text, "return_dict": False}
    denoiser = Denoiser()
    (found,) = guided(denoiser, "sample", SHARED, scale=0.5)(given)
    (call,) = denoiser.calls
    assert call[MARK].tolist() == [False] * number + [True]
    assert call["return_dict"] is False
    assert call["sample"].equal(torch.cat([sample, sample[-1:]]))
    assert call["text"].tolist() == [*text.tolist(), text[-1]]
    torch.testing.assert_close(found, 3 * sample + text[:, None, None, None] + 0.5 * 2 * text[-1])
    assert MARK not in given


def test_arguments_of_one_row_count_for_every_row():
    given = {"sample": rows(2), "text": torch.tensor([5.0]), "return_dict": False}
    denoiser = Denoiser()
    (found,) = guided(denoiser, "sample", SHARED, scale=0.0)(given)
    assert denoiser.calls[0]["text"].tolist() == [5, 5, 5]
    torch.testing.assert_close(found, 3 * rows(2) + 5)


@pytest.mark.parametrize("share", [0.0, 0.7, 1.0])
def test_rescaled_prediction_is_that_of_the_paper_in_both_rows(share):
    """Equations 15 and 16: the contrast of the prompt's own prediction, mixed with the guided."""
    plain, asked = rows(1, 1), rows(1, 2)
    run = rescaled(lambda _: (torch.cat([plain, asked]),), 7.5, share)
    (found,) = run({})
    wanted = plain + 7.5 * (asked - plain)
    wanted = share * wanted * asked.std() / wanted.std() + (1 - share) * wanted
    torch.testing.assert_close(found, torch.cat([wanted, wanted]))


def test_unguided_prediction_is_not_rescaled():
    outputs = (rows(1),)
    assert rescaled(lambda _: outputs, 7.5, 1.0)({}) is outputs


class Block(nn.Module):
    """A middle block with self-attention and attention to texts."""

    def __init__(self):
        super().__init__()
        self.attn1, self.attn2 = (
            Attention(8, heads=2, dim_head=4, cross_attention_dim=width) for width in (None, 6)
        )


class Unet(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.mid_block, self.upper = Block(), Block()


def test_only_a_middle_block_has_what_can_be_perturbed():
    class Other(nn.Module):
        mid_block = None

    assert Perturbation(Unet()).is_possible
    assert not Perturbation(Other()).is_possible
    assert not Perturbation(nn.Linear(1, 1)).is_possible


@torch.inference_mode()
def test_marked_rows_see_nothing_but_their_own_place():
    unet, seen = Unet(), torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(1))
    layer = unet.mid_block.attn1
    whole, texts = layer(seen), torch.ones(3, 4, 6)
    own = layer.to_out[0](layer.to_v(seen))
    beside = unet.mid_block.attn2(seen, texts), unet.upper.attn1(seen)
    perturbation = Perturbation(unet)
    told = []

    def run(arguments):
        told.append(arguments)
        assert unet.mid_block.attn2(seen, texts).equal(beside[0])
        assert unet.upper.attn1(seen).equal(beside[1])
        return layer(seen)

    marks = torch.tensor([False, True, False])
    for is_wanted in (True, True, False, True):
        perturbation.apply(is_wanted)
        found = perturbation.reading(run)({"sample": seen, MARK: marks})
        wanted = torch.where(marks[:, None, None], own, whole) if is_wanted else whole
        torch.testing.assert_close(found, wanted)
        assert perturbation.reading(run)({"sample": seen}).equal(whole), "none are marked"
    assert all(list(arguments) == ["sample"] for arguments in told)
