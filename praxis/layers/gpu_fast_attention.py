"""Attention layers with kernels for GPUs, gathered under their public path."""

from praxis.layers.attention.gpu_fused import GpuCudnnFusedDotProductAttention
from praxis.layers.attention.gpu_fused_grouped import GpuCudnnFusedGroupedQueryAttention

__all__ = ["GpuCudnnFusedDotProductAttention", "GpuCudnnFusedGroupedQueryAttention"]
