"""Wrong versions of denoised smoothing: the classifier behind the denoiser, its noise, and its training."""

from __future__ import annotations

from mutant import Mutant, group

TRAINING = "tests/objectives/test_denoising.py"

DENOISED: list[Mutant] = [
    *group(
        "denoised", "defences/denoised.py", "tests/defences/test_denoised.py",
        ("self.judged(self.denoiser(images), images)", "self.judged(images, images)"),
        ("if isinstance(base, Decides):", "if False:"),
        ("if not 0.0 < sigma < math.inf:", "if False:"),
        ("self.base.requires_grad_(False)", "pass"),
        ("        self.base.eval()\n", ""),
        ("if clean.shape != images.shape:", "if False:"),
        ("and not math.isclose(module.sigma, sigma):", "and False:"),
        ("for module in model.modules():", "for module in [model]:"),
        ("if sigma is not None and not math.isclose(sigma, known):", "if False:"),
        ("network = held[0].denoiser if held else denoiser", "network = denoiser"),
        ("known = held[0].sigma if held else None", "known = None"),
        ("if len(held) > 1:", "if False:"),
        ("if chosen is None:", "if False:"),
    ),
    *group(
        "denoised", "defences/smoothed.py", "tests/defences/test_denoised.py",
        ("    check_sigma(base, noise.sigma)\n", ""),
    ),
    *group(
        "denoised", "certificates/gate.py", "tests/defences/test_denoised.py",
        ("        check_sigma(model, sigma)\n", "        pass\n"),
        ("    if sigma:\n", "    if True:\n"),
    ),
    *group(
        "denoised", "verbs/train.py",
        "tests/verbs/test_train.py::test_a_defence_that_does_not_fit_is_refused_before_training",
        ("    check_wrap(model, recipe)\n", ""),
        ("        parameter.requires_grad_(own)\n", "        pass\n"),
    ),
    *group(
        "denoised", "models/dncnn.py", "tests/models/test_dncnn.py",
        ("return images - noise", "return noise"),
        ("nn.init.zeros_(last.weight)", "pass"),
        ("for _ in range(depth - 2):", "for _ in range(depth - 1):"),
        ("if min(channels, width) < 1 or depth < 2:", "if min(channels, width) < 1:"),
        ("if min(channels, width) < 1 or depth < 2:", "if depth < 2:"),
    ),
    *group(
        "denoised", "models/one_step_diffusion.py", "tests/models/test_one_step_diffusion.py",
        ("enough = ratios >= 2.0 * sigma", "enough = ratios >= sigma"),
        ("enough = ratios >= 2.0 * sigma", "enough = ratios > 2.0 * sigma"),
        ("ratios = ((1.0 - table) / table).sqrt()", "ratios = (1.0 - table).sqrt()"),
        ("centred = 2.0 * images - 1.0", "centred = images"),
        ("noise_in(self.unet, self.scale * centred,", "noise_in(self.unet, centred,"),
        ("return noise[:, :channels] if noise.shape[1] == 2 * channels else noise", "return noise"),
        ("clean = centred - self.ratio * noise", "clean = centred - 2.0 * self.sigma * noise"),
        ("clean.clamp(-1.0, 1.0)", "clean"),
        ("if not (falling and bool(((table > 0.0) & (table <= 1.0)).all())):", "if not falling:"),
        ("if not (falling and bool(((table > 0.0) & (table <= 1.0)).all())):",
         "if not bool(((table > 0.0) & (table <= 1.0)).all()):"),
        ("if not (0.0 < sigma < math.inf and bool(enough.any())):", "if not bool(enough.any()):"),
        ("if not (0.0 < sigma < math.inf and bool(enough.any())):", "if not 0.0 < sigma < math.inf:"),
        ("if (folder is None) == (unet is None) or (unet is None) != (scheduler is None):", "if False:"),
        ("    except ImportError as error:\n", "    except KeyError as error:\n"),
    ),
    *group(
        "denoised", "objectives/denoising.py",  # without the test that trains
        f"{TRAINING}::test_it_is_what_numpy_says {TRAINING}::test_another_model_and_no_term_at_all_are_refused",
        ("if not (self.mse or self.stability):", "if False:"),
        ("if not isinstance(model, DenoisedClassifier):", "if False:"),
        ("Gaussian(model.sigma)", "Gaussian(1.0)"),
        ("functional.mse_loss(found, batch.images)", "functional.mse_loss(found, noisy)"),
        ("wanted = model.base(batch.images).argmax(1)", "wanted = batch.labels"),
        ("self.mse * error", "error"),
        ("loss + self.stability * apart", "loss + apart"),
    ),
]  # fmt: skip
