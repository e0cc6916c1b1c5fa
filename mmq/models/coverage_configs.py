"""Example configurations for architectures whose default one describes no model."""

from typing import Any

ROPE = {"rope_type": "default", "rope_theta": 10000.0}
CHANGES: dict[str, dict[str, Any]] = {  # model type: what its default configuration lacks
    "aya_vision": {
        "vision_config": {"model_type": "siglip_vision_model", "num_attention_heads": 16}
    },
    "chameleon": {"vocabulary_map": {"<image>": 8711}},
    "cohere_compass": {"text_config": {"rope_parameters": {"full_attention": ROPE}}},
    "deepseek_ocr2": {
        "text_config": {"num_hidden_layers": 4, "mlp_layer_types": ["dense", *["sparse"] * 3]}
    },
    "diffusion_gemma": {
        "text_config": {"num_experts": 8, "top_k_experts": 2, "moe_intermediate_size": 704}
    },
    "emu3": {"vocabulary_map": {"<image>": 151646, "<|extra_200|>": 151846}},
    "gemma4": {"vision_config": {"model_type": "gemma4_vision"}},
    "granite4_vision": {"deepstack_layer_map": [[3, 0], [7, 6]], "downsample_rate": "1/2"},
    "hunyuan_vl": {"text_config": {"head_dim": 128}},
    "perception_lm": {
        "vision_config": {
            "model_type": "timm_wrapper", "architecture": "vit_pe_core_large_patch14_336",
            "model_args": {
                "embed_dim": 1024, "img_size": [448, 448], "depth": 23, "global_pool": "",
                "use_post_transformer_norm": False, "init_values": 0.1, "ref_feat_shape": [32, 32],
            },
        }
    },
    "qwen4_exp": {
        "text_config": {
            "indexer_n_heads": 4, "indexer_kv_heads": 1, "indexer_head_dim": 256,
            "indexer_budget": 2048, "indexer_compress_ratio": 16,
        }
    },
}  # fmt: skip


def example(config_class: Any) -> Any:
    """A configuration of a class from which a model can be built."""
    return config_class(**CHANGES.get(config_class.model_type, {}))
