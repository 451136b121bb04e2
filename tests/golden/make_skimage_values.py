"""Prints what scikit-image gives for the pictures of MetricsTest.AreTheValuesOfScikitImage (tests/model/flow_loss/metrics_test.cpp).

    python tests/golden/make_skimage_values.py        needs scikit-image (0.26.0 gave the numbers of the test), in an environment of its own
"""

import numpy as np
from skimage.metrics import peak_signal_noise_ratio, structural_similarity


def image(phase, shape=(3, 40, 52)):
    i = np.arange(np.prod(shape), dtype=np.float64)
    return (0.5 + 0.45 * np.cos(phase + 0.31 * i + 0.0019 * i * i)).reshape(shape).transpose(1, 2, 0)


for phase in (0.2, 1.0):
    a, b = image(0.0), image(phase)
    ssim = structural_similarity(a, b, channel_axis=2, data_range=1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False)
    print(f"phase {phase}: ssim {ssim:.9f}, psnr {peak_signal_noise_ratio(a, b, data_range=1):.9f}")
