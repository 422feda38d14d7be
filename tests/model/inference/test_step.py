"""What a denoising step costs: caching, threads, memory, device synchronisation and compilation."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from torch import Tensor
from torch._dynamo.testing import CompileCounter
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from model.face.face import Face
from model.inference.gate_maps import GateMaps
from model.inference.pipeline import DynamicIDPipeline
from model.network.adapter import Adapter
from model.network.attention import SelfAttentionLoRA, SemanticActivatedAttention
from model.network.identity_state import IdentityState
from tests.model.inference.pictures import HALVES, draw

MODES: dict[str, dict[str, Any]] = {
    "one person": {},
    "without gate": {"gate": False},
    "boxes, boosted": {"boxes": HALVES, "boost": 2.0, "boost_steps": 3},
    "masks, a strength each": {"masks": torch.eye(2).repeat_interleave(4, 1)[:, None], "scale": [1.0, 0.5]},
    "other LoRA scale, maps": {"lora_scale": 0.4, "maps": [], "threshold": 0.2},
}


def people(mode: dict[str, Any]) -> int:
    return 2 if "boxes" in mode or "masks" in mode else 1


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def small_attention(kind: str) -> tuple[Attention, Any]:
    """Return an attention with a processor whose parts all have an effect."""
    torch.manual_seed(0)
    if kind == "self":
        layer, processor = Attention(32, heads=4, dim_head=8), SelfAttentionLoRA(32, 4)
    else:
        layer = Attention(32, cross_attention_dim=24, heads=4, dim_head=8)
        processor = SemanticActivatedAttention(32, 24, 4)
    for name, parameter in processor.named_parameters():
        if ".up." in name:
            torch.nn.init.normal_(parameter, std=0.1)
    layer.set_processor(processor)
    return layer.eval(), processor.eval()


def test_text_and_identity_keys_are_computed_once_per_picture(pipe: DynamicIDPipeline, faces: list[Face]) -> None:
    calls: Counter[str] = Counter()

    def count(name: str) -> Callable[..., None]:
        return lambda *_: calls.update([name])

    for index, (name, layer) in enumerate(
        (name, pipe.unet.get_submodule(name.removesuffix(".processor"))) for name in pipe.unet.attn_processors
    ):
        parts = {"to_q": layer.to_q}
        if layer.is_cross_attention:
            processor = layer.processor
            parts |= {"to_k": layer.to_k, "to_v": layer.to_v}
            parts |= {"to_k_ip": processor.to_k_ip, "to_v_ip": processor.to_v_ip}
        for part, module in parts.items():
            module.register_forward_hook(count(f"{index} {part} {name.split('.')[-2]}"))
    draw(pipe, faces=faces, num_inference_steps=4)
    assert {number for name, number in calls.items() if "to_q" in name} == {4}
    assert {number for name, number in calls.items() if "to_q" not in name} == {1}
    assert sum("to_k_ip" in name for name in calls) == sum("to_q attn2" in name for name in calls) > 0
    draw(pipe, faces=faces[::-1], num_inference_steps=2)
    assert {number for name, number in calls.items() if "to_q" not in name} == {2}


@torch.no_grad()
def test_alternating_calls_do_not_mix(pipe: DynamicIDPipeline) -> None:
    """Two pictures whose steps alternate on one UNet equal those rendered one after the other."""
    torch.manual_seed(0)
    latents, texts, tokens = torch.randn(2, 1, 4, 16, 16), torch.randn(2, 1, 77, 64), torch.randn(2, 1, 8, 64)

    def states() -> list[IdentityState]:
        return [
            IdentityState(tokens[0], boxes=HALVES, cache={}),
            IdentityState(tokens[1], scale=0.5, lora_scale=0.7, cache={}),
        ]

    def step(who: int, state: IdentityState, time: int) -> Tensor:
        extra = {"identity": state}
        return pipe.unet(latents[who], torch.tensor(time), texts[who], cross_attention_kwargs=extra).sample

    alone = [[step(who, state, time) for time in (900, 500, 100)] for who, state in enumerate(states())]
    both = states()
    turns = [[step(who, both[who], time) for who in (0, 1)] for time in (900, 500, 100)]
    for who in (0, 1):
        assert all(torch.equal(turns[number][who], alone[who][number]) for number in range(3))


def test_threads_share_a_pipeline(pipe: DynamicIDPipeline, faces: list[Face], monkeypatch: pytest.MonkeyPatch) -> None:
    """Also its tokenizer, which keeps the padding of a call in itself: here, long enough for the others to come."""
    kind: Any = type(pipe.tokenizer)
    kept = kind.set_truncation_and_padding

    def slow(*arguments: Any, **keywords: Any) -> None:
        kept(*arguments, **keywords)
        time.sleep(0.02)

    monkeypatch.setattr(kind, "set_truncation_and_padding", slow)
    asked: list[dict[str, Any]] = [
        {"faces": faces[:1], "seed": 1, "guidance_scale": 3.0, "num_inference_steps": 4},
        {"faces": faces[1:], "seed": 2, "guidance_scale": 1.0, "num_inference_steps": 3, "identity_scale": 0.5},
        {"faces": faces, "seed": 3, "guidance_scale": 5.0, "num_inference_steps": 2, "boxes": HALVES},
    ]
    alone = [draw(pipe, **one).images for one in asked]
    found: dict[int, np.ndarray] = {}

    def work(number: int) -> None:
        found[number] = draw(pipe, **asked[number]).images

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(asked))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, picture in enumerate(alone):
        assert np.array_equal(found[number], picture)


class Sizes(TorchDispatchMode):
    """Record the number of elements of every tensor that an operation creates."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.made += [x.numel() for x in (out if isinstance(out, tuple | list) else (out,)) if isinstance(x, Tensor)]
        return out


@torch.no_grad()
@pytest.mark.parametrize("kind", ["self", "cross"])
def test_no_attention_matrix_is_created(kind: str) -> None:
    """With 512 queries, 77 words and 4 heads, an attention matrix would be far larger than any tensor created."""
    layer, _ = small_attention(kind)
    hidden, text = torch.randn(1, 512, 32), torch.randn(1, 77, 24)
    state = IdentityState(torch.randn(1, 4, 24), height=16, width=32)
    with Sizes() as sizes:
        layer(hidden, encoder_hidden_states=None if kind == "self" else text, identity=state)
    assert max(sizes.made) <= 512 * 32
    keys = 512 if kind == "self" else 77
    assert max(sizes.made) < 4 * 512 * keys / 4


@pytest.mark.parametrize("mode", MODES)
def test_a_step_never_waits_for_the_device(mode: str) -> None:
    """Fake tensors have no values, so that reading a value (item, bool, nonzero) is an error."""
    given, count = MODES[mode], people(MODES[mode])
    with FakeTensorMode(), torch.no_grad():
        unet = UNet2DConditionModel(
            sample_size=16,
            block_out_channels=(16, 32),
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            layers_per_block=1,
            attention_head_dim=2,
            cross_attention_dim=64,
            norm_num_groups=8,
        )
        adapter = Adapter(unet, 48, {"lora_rank": 4}, 0.3)
        adapter.attach(unet)
        maps = GateMaps(16, 16, guided=True)
        settings = {**given, "maps": maps.pending, "masks": torch.ones(2, 8, 8) if "masks" in given else None}
        state = IdentityState(torch.randn(2, 4 * count, 64), cache={}, height=16, width=16, **settings)
        for number in range(2):
            state.step = number
            out = unet(
                torch.randn(2, 4, 16, 16),
                torch.zeros((), dtype=torch.int64),
                torch.randn(2, 77, 64),
                cross_attention_kwargs={"identity": state},
            ).sample
            maps.fold()
        assert out.shape == (2, 4, 16, 16)
        with pytest.raises(DataDependentOutputException):
            out.sum().item()


@torch.no_grad()
@pytest.mark.parametrize("mode", MODES)
def test_processors_compile_in_one_graph(fresh_compiler: None, mode: str) -> None:
    """No graph break (fullgraph), the same numbers, and no new graph after the second step of a picture."""
    given = MODES[mode]
    layer, processor = small_attention("cross")
    own, own_processor = small_attention("self")
    counter = CompileCounter()

    def block(hidden: Tensor, text: Tensor, state: IdentityState) -> Tensor:
        hidden = hidden + own_processor(own, hidden, identity=state)
        return hidden + processor(layer, hidden, text, identity=state)

    compiled = torch.compile(block, backend=counter, fullgraph=True, dynamic=False)
    torch.manual_seed(1)
    hidden, text, tokens = torch.randn(2, 64, 32), torch.randn(2, 77, 24), torch.randn(2, 4 * people(given), 24)

    def state() -> IdentityState:
        return IdentityState(tokens, cache={}, **{**given, "maps": [] if "maps" in given else None})

    plain, fast = state(), state()
    graphs = []
    for number in range(6):
        plain.step = fast.step = number
        expected, found = block(hidden, text, plain), compiled(hidden, text, fast)
        assert torch.allclose(found, expected, atol=1e-5)
        if fast.maps is not None:
            assert torch.allclose(fast.maps.pop(), plain.maps.pop(), atol=1e-6)
        graphs.append(counter.frame_count)
    assert graphs[0] == 1
    # The end of the boost adds graphs.
    assert graphs[-1] <= (2 if not fast.boost else 4)


def test_a_compiled_unet_renders_the_same(fresh_compiler: None, pipe: DynamicIDPipeline, faces: list[Face]) -> None:
    settings: dict[str, Any] = {"faces": faces, "boxes": HALVES}
    expected = draw(pipe, **settings).images
    counter = CompileCounter()
    pipe.unet.compile(backend=counter, fullgraph=True)
    assert np.allclose(draw(pipe, **settings).images, expected, atol=1e-4)
    graphs = counter.frame_count
    assert graphs <= 2
    assert np.allclose(draw(pipe, **settings).images, expected, atol=1e-4)
    assert counter.frame_count == graphs
