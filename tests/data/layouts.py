"""Small folders in the layouts of well-known sets, of generated pictures."""

import csv
import hashlib
from pathlib import Path

import numpy as np
from PIL import Image

DX = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
FINDINGS = ("Mass", "Nodule", "Hernia")
WNIDS = ("n01440764", "n01443537", "n02123045")


def picture(path: Path, number: int, size: tuple[int, int] = (40, 30), mode: str = "RGB") -> None:
    """A picture of smooth noise that is another one for each number; the suffix says its format."""
    coarse = np.random.default_rng(number).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).convert(mode).save(path)


def ham10000(base: Path, lesions: int = 10) -> list[tuple[str, str, str]]:
    """So many lesions of each class, of one or two photographs: (image, lesion, diagnosis) in the table's order."""
    rows: list[tuple[str, str, str]] = []
    for k, dx in enumerate(DX):
        for j in range(lesions):
            for _ in range(1 + j % 2):
                rows.append((f"ISIC_{len(rows):07d}", f"HAM_{k}{j:05d}", dx))
    for number, (image, _, _) in enumerate(rows):
        picture(base / f"HAM10000_images_part_{1 + number % 2}" / f"{image}.jpg", number)
    with (base / "HAM10000_metadata.csv").open("w", newline="") as handle:
        table = csv.writer(handle)
        table.writerow(["lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization"])
        table.writerows([lesion, image, dx, "histo", 50, "female", "back"] for image, lesion, dx in rows)
    return rows


def nih(base: Path, patients: int = 30) -> list[tuple[str, str, str]]:
    """Two radiographs of each patient: (image, findings, patient) in the table's order; every third patient is test."""
    said = ("No Finding", "Mass", "Nodule", "Hernia", "Mass|Nodule", "Hernia")
    visits = [(p, visit) for p in range(1, patients + 1) for visit in (0, 1)]
    rows = [(f"{p:08d}_{visit:03d}.png", said[(2 * p + visit) % 6], str(p)) for p, visit in visits]
    for number, (image, _, _) in enumerate(rows):
        picture(base / f"images_{1 + number % 2:03d}" / "images" / image, number, (36, 36), "L")
    with (base / "Data_Entry_2017.csv").open("w", newline="") as handle:
        table = csv.writer(handle)
        table.writerow(["Image Index", "Finding Labels", "Follow-up #", "Patient ID", "OriginalImage[Width", "Height]"])
        table.writerows([image, said, 0, patient, 36, 36] for image, said, patient in rows)
    tested = [image for image, _, patient in rows if int(patient) % 3 == 0]
    (base / "test_list.txt").write_text("\n".join(tested))
    (base / "train_val_list.txt").write_text("\n".join(image for image, _, _ in rows if image not in tested) + "\n")
    return rows


def imagenet(base: Path, flat: bool = False, train: int = 12, val: int = 4) -> dict[str, str]:
    """So many images of each of three classes; the class of each image of ``val``."""
    for k, wnid in enumerate(WNIDS):
        for i in range(train):
            picture(base / "train" / wnid / f"{wnid}_{i}.JPEG", 1000 * k + i, (40 + k, 30))
    of = {f"ILSVRC2012_val_{i:08d}": WNIDS[i % 3] for i in range(3 * val)}
    for i, (name, wnid) in enumerate(of.items()):
        picture(base / "val" / ("" if flat else wnid) / f"{name}.JPEG", 5000 + i)
    return of


def in_order(names: set[str]) -> list[str]:
    """Names in the order of their SHA-256."""
    return sorted(names, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
