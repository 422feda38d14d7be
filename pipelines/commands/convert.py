"""`dynamicid convert`: adapters from and to published checkpoints, and to diffusers' IP-Adapter layout."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pipelines.commands.options import (
    DEFAULT_PARAMS,
    NewFolder,
    Overrides,
    ParamsFile,
    argument,
    command_group,
    option,
    read_params,
    wrong_use,
)
from pipelines.commands.output import emit, say
from pipelines.core.documents import read_object
from pipelines.core.errors import UserError
from pipelines.core.files import atomic_file, atomic_folder
from pipelines.core.paths import refuse_pointers

if TYPE_CHECKING:
    from model.checkpoints.published import AdapterShapes, Published
    from model.face.conventions import Conventions
    from model.network.base import BaseReference
    from model.network.methods import Method
    from pipelines.core.params import Params

app = command_group("Convert adapters from and to published checkpoints, and to diffusers' IP-Adapter layout.")

AdapterFolder = Annotated[Path, argument("Adapter folder, such as models/adapter.", metavar="ADAPTER")]


@app.command("from-published")
def from_published(
    *,
    out: NewFolder,
    saa: Annotated[Path | None, option("DynamicID's file of face encoder and attention.", metavar="FILE")] = None,
    imr: Annotated[Path | None, option("File of the IMR; needs --landmark-encoder.", metavar="FILE")] = None,
    landmark_encoder: Annotated[
        Path | None, option("File of the landmark encoder; needs --imr.", metavar="FILE")
    ] = None,
    ip_adapter: Annotated[Path | None, option("File of IP-Adapter-FaceID or -Plus, alone.", metavar="FILE")] = None,
    consistentid: Annotated[Path | None, option("File of ConsistentID, alone.", metavar="FILE")] = None,
    rest: Annotated[
        Path | None, option("rest.safetensors of `to-published`: what the other files cannot hold.", metavar="FILE")
    ] = None,
    templates_of: Annotated[
        Path | None, option("Adapter to copy landmark templates from; face prompts need them.", metavar="DIR")
    ] = None,
    residual: Annotated[
        bool | None, option("Add the IMR's output to the source's tokens; default: no, as published.")
    ] = None,
    shortcut: Annotated[
        float | None,
        option("Add the face encoder's output so many times to the projected embedding: 1 for FaceID-Plus V2."),
    ] = None,
    plain_steps: Annotated[
        int | None,
        option("First steps without facial parts, for ConsistentID; default: 1, as published; its demos: 31.", min=0),
    ] = None,
    file: ParamsFile = DEFAULT_PARAMS,
    overrides: Overrides = None,
) -> None:
    """Convert published files to an adapter folder, bit for bit, for the base model of the parameters."""
    params = read_params(file, overrides)
    from model.checkpoints.published import PublishedFiles, read_published, to_adapter, verify
    from model.network.base import BaseReference

    own = {"--residual": residual, "--templates-of": templates_of, "--shortcut": shortcut, "--plain-steps": plain_steps}
    if rest is not None and any(value is not None for value in own.values()):
        raise UserError(f"--rest already states {', '.join(own)}: give it alone")
    _check_free(out)
    refuse_pointers(file for file in (saa, imr, landmark_encoder, rest, ip_adapter, consistentid) if file is not None)
    with wrong_use(ValueError, OSError):
        published = read_published(PublishedFiles(saa, imr, landmark_encoder, rest, ip_adapter, consistentid))
        for name in _foreign(published.method):
            if own[name] is not None:
                raise UserError(f"{name}: not a value of {published.method.name}; leave it out")
        shapes = _shapes(published, params, residual=bool(residual), templates=templates_of is not None)
        shapes = shapes if shortcut is None else replace(shapes, shortcut=shortcut)
        if published.method.facial_parts and published.config is None:
            as_published = 1 if params.conventions.like == "published" else None
            shapes = replace(shapes, plain_steps=as_published if plain_steps is None else plain_steps)
        verify(published, shapes)
        if published.config is not None:
            reference, others = BaseReference(**published.config["base"]), published.rest
        else:
            reference, others = _base_and_rest(published, shapes, params, templates_of)
        adapter = to_adapter(published, shapes, others)
        adapter.conventions = _conventions(published, params)
        with atomic_folder(out) as folder:
            adapter.made_by = _record(published, params)
            adapter.save(folder, reference)
    if shapes.imr and not adapter.takes_face_prompts:
        say("no landmark templates: face prompts need them (--templates-of, or `dynamicid train-imr`)")
    if not adapter.conventions.are_ours:
        say("it draws by conventions of its own: `conventions` in its config.json")
    tensors, ways = len(adapter.state_dict()), adapter.conventions.model_dump()
    found = {"method": adapter.method.name, "sizes": adapter.sizes, "imr": shapes.imr, "conventions": ways}
    emit({"adapter": str(out), "tensors": tensors, **found})


@app.command("to-published")
def to_published(
    adapter: AdapterFolder, out: NewFolder, file: ParamsFile = DEFAULT_PARAMS, overrides: Overrides = None
) -> None:
    """Convert an adapter to published files, bit for bit; what they cannot hold goes to rest.safetensors."""
    params = read_params(file, overrides)
    from model.checkpoints.published import read_adapter, write_all
    from model.network.adapter_config import conventions_in, method_in

    _check_free(out)
    refuse_pointers(adapter.rglob("*"))
    with wrong_use(ValueError, OSError):
        config, state = read_adapter(adapter, _unet(params))
        with atomic_folder(out) as folder:
            names = [written.name for written in write_all(config, state, folder)]
    method = method_in(config, adapter)
    if conventions_in(config, adapter).are_ours:
        say("published code prepares other inputs than those that this adapter knows: docs/reference/published.md")
    if config["reconfigurator"] and config["reconfigurator"]["residual"]:
        say("this IMR adds to the source's tokens (residual); published code must do so too, or its faces are wrong")
    if (shortcut := config.get("shortcut")) is not None:
        say(f"published code needs the shortcut {shortcut:g} of the face encoder, which its files cannot hold")
    if (plain := config.get("plain_steps")) is not None:
        say(f"the first {plain} steps are without facial parts: start_merge_step={plain - 1} of published code")
    lost = "null tokens, templates and τ" if method.motion else "null tokens"
    say(f"published files cannot hold {lost}: they are in rest.safetensors")
    emit({"folder": str(out), "files": names})


@app.command("to-ip-adapter")
def to_ip_adapter(
    adapter: AdapterFolder,
    out: Annotated[Path, option("File to write, named *.safetensors; it must not exist yet.", metavar="FILE")],
    file: ParamsFile = DEFAULT_PARAMS,
    overrides: Overrides = None,
) -> None:
    """Write face encoder and k', v' for diffusers' `load_ip_adapter`; print what is lost."""
    params = read_params(file, overrides)
    from model.checkpoints.ip_adapter_export import write_ip_adapter
    from model.checkpoints.published import read_adapter

    if out.suffix != ".safetensors":
        raise UserError(f"--out {out}: load_ip_adapter reads the file only if its name ends in .safetensors")
    _check_free(out)
    refuse_pointers(adapter.rglob("*"))
    with wrong_use(ValueError, OSError):
        config, state = read_adapter(adapter, _unet(params))
        with atomic_file(out) as written:
            lost = write_ip_adapter(config, state, written)
    for text in lost.values():
        say(f"lost: {text}")
    emit({"file": str(out), "lost": sorted(lost)})


def _shapes(published: Published, params: Params, *, residual: bool, templates: bool) -> AdapterShapes:
    from model.checkpoints.published import AdapterShapes, sizes_of
    from pipelines.core.paths import resolve

    unet, imr = _unet(params), published.files.imr is not None
    if published.config is not None:
        return AdapterShapes.of(published.config, unet)
    width = int(_config(unet)["cross_attention_dim"])
    sizes = sizes_of(published, width, params.train_anchoring.sizes.model_dump())
    image_width = int(_config(resolve(params.base.image_encoder))["hidden_size"])
    threshold = params.train_anchoring.gate_threshold
    return AdapterShapes(unet, image_width, sizes, threshold, residual, imr, templates, published.method)


def _base_and_rest(
    published: Published, shapes: AdapterShapes, params: Params, templates_of: Path | None
) -> tuple[BaseReference, dict[str, Any]]:
    """Return the reference of the base model, and the tensors that published files do not hold."""
    import torch
    from transformers import CLIPVisionModelWithProjection

    from model.checkpoints.published import encoded_null_tokens, read_adapter
    from model.network.base import BaseReference, fingerprint_of_base
    from pipelines.core.paths import resolve

    pipeline, image_encoder = params.base.pipeline, params.base.image_encoder
    fingerprint = fingerprint_of_base(resolve(pipeline), resolve(image_encoder))
    # Only the image encoder is loaded, always in float32: the rest of the base need not fit into memory.
    encoder = CLIPVisionModelWithProjection.from_pretrained(
        resolve(image_encoder), local_files_only=True, dtype=torch.float32
    )
    rest = {"null_tokens": encoded_null_tokens(published, shapes, encoder.eval())}
    if templates_of is not None:
        _, state = read_adapter(templates_of, _unet(params))
        if "templates" not in state:
            raise ValueError(f"--templates-of {templates_of}: this adapter has no landmark templates")
        rest["templates"] = state["templates"]
    return BaseReference(pipeline, image_encoder, fingerprint), rest


def _conventions(published: Published, params: Params) -> Conventions:
    """Return how the inputs of the converted adapter are prepared: as it was recorded, or as the parameters say."""
    from model.face.conventions import OURS, PUBLISHED_OF
    from model.network.adapter_config import conventions_in

    if published.config is not None:
        return conventions_in(published.config, published.files.rest)
    own = OURS if params.conventions.like == "ours" else PUBLISHED_OF[published.method.name]
    return own.with_values(params.conventions.values())


def _foreign(method: Method) -> list[str]:
    """Return the options that do not belong to a method."""
    # A shortcut adds to the resampler's output.
    foreign = {
        "--residual": not method.motion,
        "--templates-of": not method.motion,
        "--shortcut": method.gate or not method.image_states,
        "--plain-steps": not method.facial_parts,
    }
    return [name for name, is_foreign in foreign.items() if is_foreign]


def _record(published: Published, params: Params) -> Any:
    """Return what the configuration of the converted adapter records: what it recorded before, or its networks."""
    from pipelines.core.weights.licences import networks_at

    if published.config is not None:
        return published.config.get("made_by")
    files = {f"--{name.replace('_', '-')}": file for name, file in vars(published.files).items() if file is not None}
    bases = {"base.pipeline": params.base.pipeline, "base.image_encoder": params.base.image_encoder}
    networks = networks_at({**bases, **{key: str(file) for key, file in files.items()}})
    return {"stage": "convert", "networks": networks, "before": None}


def _unet(params: Params) -> Path:
    from pipelines.core.paths import resolve

    folder = resolve(params.base.pipeline)
    if (folder / "transformer").is_dir():
        raise UserError(
            f"{folder}: a base with a transformer; published layouts are those of UNets: set base.pipeline to one of "
            "Stable Diffusion"
        )
    return folder / "unet"


def _config(folder: Path) -> dict[str, Any]:
    return read_object(folder / "config.json", "expected the base model (base.pipeline, base.image_encoder)")


def _check_free(out: Path) -> None:
    if out.exists():
        raise UserError(f"--out {out}: exists already; nothing is overwritten, give another name")
