"""Published architectures with BatchNorm, as their libraries build them, with random weights and in small sizes.

No weights are downloaded. BatchNorm's parameters and statistics are random, but gentler than those of the small
models, so that activations stay finite through a hundred layers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import monai.networks.nets as volumes
import torch
import transformers as hf
from pytorchcv.model_provider import get_model
from pytorchcv.models.bamresnet import BamResNet
from pytorchcv.models.jasper import Jasper
from pytorchcv.models.wrn1bit_cifar import CIFARWRN1bit
from torch import Tensor, nn

from support.models.modules import Build, Inputs, randomized, shaped

__all__ = ["ARCHITECTURES", "Architecture"]


@dataclass(frozen=True)
class Architecture:
    """A model of somebody else's.

    Attributes:
        build: Makes the model, always the same one, in eval mode.
        inputs: Makes the arguments of its forward, by position or by keyword.
        dims: Number of spatial dimensions of what it is made for.
    """

    build: Build
    inputs: Inputs
    dims: int


def _built(make: Callable[[], Any]) -> Build:
    def build() -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return randomized(make(), 0, spread=0.5).eval()

    return build


def _image(make: Callable[[], Any], size: int, *, samples: int = 2) -> Architecture:
    return Architecture(_built(make), shaped((samples, 3, size, size)), 2)


def _volume(make: Callable[[], Any], size: int) -> Architecture:
    return Architecture(_built(make), shaped((2, 1, size, size, size)), 3)


def _signal(make: Callable[[], Any], inputs: Inputs) -> Architecture:
    return Architecture(_built(make), inputs, 1)


def _tokens(*shape: int) -> Tensor:
    return torch.randint(1, 20, shape, generator=torch.Generator().manual_seed(1))


def _jasper(*, use_dw: bool, use_dr: bool) -> Any:
    """Make a small Jasper; QuartzNet is Jasper with depthwise convolutions, Jasper DR has dense residuals."""
    return Jasper(
        channels=[16, 16, 24, 24, 32],
        kernel_sizes=[11, 11, 13, 15, 1],
        bn_eps=1e-3,
        dropout_rates=[0.2, 0.2, 0.2, 0.2, 0.4],
        repeat=2,
        use_dw=use_dw,
        use_dr=use_dr,
        from_audio=False,
        in_channels=16,
        num_classes=8,
    )


def _features_of_speech() -> dict[str, Tensor]:
    return {"x": shaped((2, 16, 40))()[0], "x_len": torch.tensor([40, 33])}


def _speecht5_inputs() -> dict[str, Tensor]:
    spectrogram, speaker = shaped((2, 6, 8), (2, 4))()
    return {"input_ids": _tokens(2, 7), "decoder_input_values": spectrogram, "speaker_embeddings": speaker}


def _series_inputs() -> dict[str, Tensor]:
    past, past_time, future, future_time = shaped((2, 18), (2, 18, 1), (2, 4), (2, 4, 1))()
    return {
        "past_values": past,
        "past_time_features": past_time,
        "past_observed_mask": torch.ones(2, 18),
        "future_values": future,
        "future_time_features": future_time,
    }


def _clap_inputs() -> dict[str, Tensor]:
    return {"input_features": shaped((3, 4, 250, 16))()[0], "is_longer": torch.tensor([[True], [False], [True]])}


ARCHITECTURES: dict[str, Architecture] = {
    # Images.
    "ResNet": _image(
        lambda: hf.ResNetModel(hf.ResNetConfig(embedding_size=8, hidden_sizes=[16, 24], depths=[1, 2])), 64
    ),
    "RegNet": _image(
        lambda: hf.RegNetModel(hf.RegNetConfig(embedding_size=8, hidden_sizes=[16, 24], depths=[1, 2], groups_width=8)),
        64,
    ),
    "MobileNetV1": _image(lambda: hf.MobileNetV1Model(hf.MobileNetV1Config(depth_multiplier=0.25)), 96),
    "MobileNetV2": _image(lambda: hf.MobileNetV2Model(hf.MobileNetV2Config(depth_multiplier=0.25)), 96),
    "MobileNetV3": _image(lambda: get_model("mobilenetv3_small_w7d20"), 224),
    "EfficientNet": _image(lambda: get_model("efficientnet_b0"), 64),
    "ShuffleNetV2": _image(lambda: get_model("shufflenetv2_wd2"), 224),
    "DenseNet": _image(lambda: get_model("densenet40_k12_cifar10"), 32),
    "BN-Inception": _image(lambda: get_model("bninception"), 224, samples=1),
    "DLA": _image(lambda: get_model("dla34"), 224, samples=1),
    "OctResNet": _image(lambda: get_model("octresnet10_ad2"), 224),
    "Shake-Shake": _image(lambda: get_model("shakeshakeresnet20_2x16d_cifar10"), 32),
    # BatchNorm1d on (N, C), one LSTM for all layers, weights binarized on the fly, reversible blocks.
    "BAM-ResNet": _image(lambda: BamResNet([[16], [32], [48], [64]], 16, False), 224),
    "DIA-ResNet": _image(lambda: get_model("diaresnet20_cifar10"), 32),
    "WRN 1-bit": _image(lambda: CIFARWRN1bit([[16, 16], [32, 32], [64, 64]], 16), 32),
    "RevNet": _image(lambda: get_model("revnet38"), 224, samples=1),
    "PP-LCNet": _image(lambda: hf.PPLCNetBackbone(hf.PPLCNetConfig(scale=0.25)), 96),
    "HGNetV2": _image(
        lambda: hf.HGNetV2Backbone(
            hf.HGNetV2Config(
                stem_channels=[3, 8, 8],
                stage_in_channels=[8, 16, 24, 32],
                stage_mid_channels=[8, 8, 12, 12],
                stage_out_channels=[16, 24, 32, 40],
                stage_numb_of_layers=[2, 2, 2, 2],
                stage_num_blocks=[1, 1, 1, 1],
            )
        ),
        64,
    ),
    "LeViT": _image(  # BatchNorm1d on tokens, (N * L, C)
        lambda: hf.LevitForImageClassificationWithTeacher(
            hf.LevitConfig(
                image_size=64,
                hidden_sizes=[16, 24, 32],
                num_attention_heads=[2, 2, 2],
                depths=[1, 1, 1],
                key_dim=[8, 8, 8],
            )
        ),
        64,
    ),
    "SwiftFormer": _image(
        lambda: hf.SwiftFormerModel(hf.SwiftFormerConfig(depths=[1, 1, 1, 1], embed_dims=[8, 12, 16, 24])), 128
    ),
    "CvT": _image(lambda: hf.CvtModel(hf.CvtConfig(embed_dim=[8, 16, 24], num_heads=[1, 2, 2], depth=[1, 2, 3])), 64),
    "MobileViT": _image(  # one of its BatchNorms is on a map of one element
        lambda: hf.MobileViTForSemanticSegmentation(
            hf.MobileViTConfig(
                image_size=64,
                hidden_sizes=[16, 24, 32],
                neck_hidden_sizes=[8, 8, 16, 16, 24, 24, 32],
                aspp_out_channels=16,
            )
        ),
        64,
    ),
    "SegFormer": _image(
        lambda: hf.SegformerForSemanticSegmentation(
            hf.SegformerConfig(
                hidden_sizes=[8, 16, 24, 32],
                depths=[1, 1, 1, 1],
                num_attention_heads=[1, 1, 1, 1],
                decoder_hidden_size=16,
            )
        ),
        64,
    ),
    "DPT": _image(  # two of its BatchNorms are never called
        lambda: hf.DPTForDepthEstimation(
            hf.DPTConfig(
                hidden_size=16,
                num_hidden_layers=4,
                num_attention_heads=2,
                intermediate_size=16,
                image_size=32,
                patch_size=8,
                backbone_out_indices=[0, 1, 2, 3],
                neck_hidden_sizes=[8, 8, 8, 8],
                fusion_hidden_size=8,
                use_batch_norm_in_fusion_residual=True,
                initializer_range=0.3,
            )
        ),
        32,
    ),
    "RT-DETR": _image(
        lambda: hf.RTDetrModel(
            hf.RTDetrConfig(
                backbone_config=hf.RTDetrResNetConfig(
                    embedding_size=8,
                    hidden_sizes=[16, 24, 32, 40],
                    depths=[1, 1, 1, 1],
                    out_features=["stage2", "stage3", "stage4"],
                ),
                freeze_backbone_batch_norms=False,
                encoder_hidden_dim=16,
                encoder_in_channels=[24, 32, 40],
                encoder_ffn_dim=16,
                encoder_attention_heads=2,
                d_model=16,
                num_queries=5,
                decoder_in_channels=[16, 16, 16],
                decoder_ffn_dim=16,
                decoder_layers=1,
                decoder_attention_heads=2,
            )
        ),
        64,
    ),
    "SegNet": _image(lambda: get_model("segnet_cityscapes"), 64),
    "ERFNet": _image(lambda: get_model("erfnet_cityscapes"), 128),
    "CGNet": _image(lambda: get_model("cgnet_cityscapes"), 128),
    "PRNet": _image(lambda: get_model("prnet"), 256, samples=1),
    # Signals: speech, text, time series.
    "Jasper": _signal(lambda: _jasper(use_dw=False, use_dr=False), _features_of_speech),
    "Jasper DR": _signal(lambda: _jasper(use_dw=False, use_dr=True), _features_of_speech),
    "QuartzNet": _signal(lambda: _jasper(use_dw=True, use_dr=False), _features_of_speech),
    "Wav2Vec2-Conformer": _signal(
        lambda: hf.Wav2Vec2ConformerModel(
            hf.Wav2Vec2ConformerConfig(
                hidden_size=16,
                num_hidden_layers=2,
                num_attention_heads=2,
                intermediate_size=16,
                conv_dim=[8, 8],
                conv_stride=[5, 2],
                conv_kernel=[10, 3],
                num_conv_pos_embeddings=4,
                num_conv_pos_embedding_groups=2,
                conv_depthwise_kernel_size=5,
            )
        ),
        shaped((2, 800)),
    ),
    "FastSpeech2-Conformer": _signal(
        lambda: hf.FastSpeech2ConformerModel(
            hf.FastSpeech2ConformerConfig(
                hidden_size=16,
                vocab_size=20,
                num_mel_bins=8,
                encoder_layers=1,
                decoder_layers=1,
                encoder_linear_units=16,
                decoder_linear_units=16,
                speech_decoder_postnet_layers=3,
                speech_decoder_postnet_units=16,
                duration_predictor_channels=8,
                energy_predictor_channels=8,
                pitch_predictor_channels=8,
                decoder_kernel_size=7,
            )
        ),
        lambda: (_tokens(1, 12),),
    ),
    "Parakeet": _signal(
        lambda: hf.ParakeetEncoder(
            hf.ParakeetEncoderConfig(
                hidden_size=16,
                num_hidden_layers=2,
                num_attention_heads=2,
                intermediate_size=16,
                subsampling_conv_channels=8,
                num_mel_bins=16,
            )
        ),
        shaped((2, 64, 16)),
    ),
    "SpeechT5": _signal(  # drops at test time too
        lambda: hf.SpeechT5ForTextToSpeech(
            hf.SpeechT5Config(
                vocab_size=20,
                hidden_size=16,
                encoder_layers=1,
                decoder_layers=1,
                encoder_attention_heads=2,
                decoder_attention_heads=2,
                encoder_ffn_dim=16,
                decoder_ffn_dim=16,
                num_mel_bins=8,
                speech_decoder_prenet_units=8,
                speaker_embedding_dim=4,
                speech_decoder_postnet_units=8,
            )
        ),
        _speecht5_inputs,
    ),
    "CLAP": _signal(  # attention to the longer recordings alone, over maps of one element
        lambda: hf.ClapAudioModel(
            hf.ClapAudioConfig(
                spec_size=64,
                num_mel_bins=16,
                patch_embeds_hidden_size=8,
                depths=[1, 1],
                num_attention_heads=[1, 2],
                hidden_size=16,
                num_hidden_layers=2,
                window_size=4,
                enable_fusion=True,
            )
        ),
        _clap_inputs,
    ),
    "PatchTST": _signal(
        lambda: hf.PatchTSTModel(
            hf.PatchTSTConfig(
                num_input_channels=2,
                context_length=32,
                patch_length=4,
                patch_stride=4,
                num_hidden_layers=2,
                d_model=16,
                num_attention_heads=2,
                ffn_dim=16,
            )
        ),
        shaped((3, 32, 2)),
    ),
    "PatchTSMixer": _signal(
        lambda: hf.PatchTSMixerModel(
            hf.PatchTSMixerConfig(
                context_length=32,
                patch_length=4,
                patch_stride=4,
                num_input_channels=2,
                d_model=8,
                num_layers=2,
                norm_mlp="BatchNorm",
            )
        ),
        shaped((3, 32, 2)),
    ),
    "Informer": _signal(  # samples the keys of its attention at random
        lambda: hf.InformerModel(
            hf.InformerConfig(
                prediction_length=4,
                context_length=16,
                lags_sequence=[1, 2],
                d_model=8,
                encoder_ffn_dim=8,
                decoder_ffn_dim=8,
                num_time_features=1,
            )
        ),
        _series_inputs,
    ),
    "1D U-Net": _signal(
        lambda: volumes.UNet(1, 1, 2, (4, 8, 16), (2, 2), num_res_units=1, norm="batch"), shaped((2, 1, 32))
    ),
    # Volumes.
    "3D U-Net": _volume(lambda: volumes.UNet(3, 1, 2, (4, 8, 16), (2, 2), num_res_units=2, norm="batch"), 16),
    "BasicUNet": _volume(lambda: volumes.BasicUNet(3, 1, 2, (4, 4, 8, 8, 8, 4), norm="batch"), 32),
    "AttentionUnet": _volume(lambda: volumes.AttentionUnet(3, 1, 2, (4, 8, 16), (2, 2)), 16),
    "DynUNet": _volume(
        lambda: volumes.DynUNet(3, 1, 2, [3, 3, 3], [1, 2, 2], [2, 2], filters=[4, 8, 8], norm_name="batch"), 16
    ),
    "SegResNet": _volume(
        lambda: volumes.SegResNet(3, 4, 1, 2, norm="batch", blocks_down=(1, 1, 2), blocks_up=(1, 1)), 16
    ),
    "HighRes3DNet": _volume(lambda: volumes.HighResNet(3, 1, 2), 8),
    "3D DenseNet": _volume(
        lambda: volumes.DenseNet(3, 1, 3, init_features=8, growth_rate=4, block_config=(2, 2, 2)), 32
    ),
    "3D ResNet": _volume(
        lambda: volumes.ResNet(
            "bottleneck", [1, 1, 1, 1], [4, 8, 8, 16], spatial_dims=3, n_input_channels=1, num_classes=3
        ),
        32,
    ),
}
