"""Synthetic prostate: T2-weighted axial MRI of the pelvis in the scanning style of one of five hospitals.

A volume is made in three steps. `draw_patient` draws the numbers that differ between men, `paint_pelvis` paints tissue
over tissue on the scanner's grid, each with its T2 signal between 0 and about 1, and `scan` adds what the scanner does
to it: coil, shading, blur, noise and the unit of the day.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from fedbcs_monai.demo.synthetic_texture import Field, noise, ramp

# T2 signal, where fluid is 1
AIR, CORTEX, MUSCLE, WALL, MARROW, FAT, FLUID = 0.02, 0.06, 0.15, 0.22, 0.50, 0.72, 1.0


@dataclass(frozen=True)
class Scanner:
    """How one hospital scans.

    Attributes:
        matrix: Voxels along each in-plane axis.
        fov_mm: Field of view along each in-plane axis.
        slices: Number of slices.
        slice_mm: Distance between slices.
        unit: Stored value of signal 1.
        gamma: Contrast; 1 is as painted, below 1 is flatter, above 1 is steeper.
        shading: Strength of the smooth bias field, as the standard deviation of its logarithm.
        noise: Standard deviation of each of the two channels of noise, where fluid is 1.
        blur_mm: Standard deviation of the in-plane blur.
        fat: Signal of fat relative to a scan without fat suppression, 0..1.
        coil: What fills the rectum: nothing put in ("none"), a coil's balloon of "air" or of "fluid".
        band: Whether a saturation band darkens the front of the pelvis.
    """

    matrix: int
    fov_mm: float
    slices: int
    slice_mm: float
    unit: float
    gamma: float = 1.0
    shading: float = 0.15
    noise: float = 0.02
    blur_mm: float = 0.4
    fat: float = 1.0
    coil: str = "none"
    band: bool = False


SCANNERS = (
    Scanner(matrix=128, fov_mm=160, slices=14, slice_mm=3.6, unit=1100, noise=0.02),
    Scanner(matrix=144, fov_mm=151, slices=12, slice_mm=4.0, unit=330, gamma=0.75, noise=0.05, blur_mm=0.9),
    Scanner(matrix=160, fov_mm=112, slices=16, slice_mm=2.4, unit=3500, gamma=1.1, shading=0.25, coil="air"),
    Scanner(matrix=128, fov_mm=140, slices=14, slice_mm=3.0, unit=1700, gamma=1.1, noise=0.035, fat=0.4),
    Scanner(matrix=144, fov_mm=126, slices=14, slice_mm=3.3, unit=700, gamma=0.9, noise=0.03, coil="fluid", band=True),
)


class Volume(NamedTuple):
    """An image, its label and where they lie.

    Attributes:
        image: (W, H, D) int16, in the scanner's unit. Axes run to the patient's left, back and head.
        label: (W, H, D) uint8, 1 inside the prostate, 0 elsewhere.
        affine: (4, 4), from voxel indices to millimetres to the right, front and head (RAS+, as in NIfTI).
    """

    image: NDArray[np.int16]
    label: NDArray[np.uint8]
    affine: NDArray[np.float64]


class Patient(NamedTuple):
    """What differs between men. Lengths in millimetres; x to the left, y to the back, z to the head.

    Attributes:
        centre: Centre of the prostate in the field of view.
        roll: Rotation about the long axis in radians.
        semi_axes: Half the width, depth and height of the prostate.
        collar: Signal of the veins and muscle that cling to the prostate.
        peripheral: Signal of the peripheral zone; low after inflammation.
        hyperplasia: Share of the prostate's width taken by the transition zone, 0..1.
        rectum: Half the width and depth of the rectum.
        stool: Signal of what is in the rectum.
        bladder: Half the width of the full bladder.
        body_mm: Distance of the skin from the prostate's centre, towards the front and the back.
        nodules: (N, 5) x, y, z relative to the semi-axes, radius in mm, signal.
        lesions: (N, 5) the same, of dark lesions in the peripheral zone.
    """

    centre: tuple[float, float, float]
    roll: float
    semi_axes: tuple[float, float, float]
    collar: float
    peripheral: float
    hyperplasia: float
    rectum: tuple[float, float]
    stool: float
    bladder: float
    body_mm: float
    nodules: NDArray[np.float64]
    lesions: NDArray[np.float64]


class Grid(NamedTuple):
    """Where each voxel lies in the patient, in mm from the prostate's centre: x, y (W, H, D) and z (1, 1, D)."""

    x: Field
    y: Field
    z: Field


def make_volume(scanner: Scanner, rng: np.random.Generator, size: int | None = None) -> Volume:
    """Make up one volume of ``size`` x ``size`` voxels in plane, the scanner's own matrix if not given.

    The field of view stays, so a smaller size means larger voxels.
    """
    matrix = size or scanner.matrix
    shape = (matrix, matrix, scanner.slices)
    spacing = np.array([scanner.fov_mm / matrix, scanner.fov_mm / matrix, scanner.slice_mm])
    patient = draw_patient(scanner, rng)
    grid = _place(patient, shape, spacing, rng)
    signal, inside = paint_pelvis(patient, scanner, grid, spacing, rng)
    image = scan(signal, scanner, grid, patient, spacing, rng)
    return Volume(image, inside.astype(np.uint8), _affine(shape, spacing))


def _affine(shape: tuple[int, ...], spacing: NDArray[np.float64]) -> NDArray[np.float64]:
    """Voxels run left, back, head from a grid centred on the magnet; the world runs right, front, head."""
    step = spacing * (-1, -1, 1)
    affine = np.diag([*step, 1.0])
    affine[:3, 3] = -step * (np.array(shape) - 1) / 2
    return affine


def draw_patient(scanner: Scanner, rng: np.random.Generator) -> Patient:
    """Draw one man; the prostate leaves slices free above and below."""
    coil = scanner.coil != "none"
    height = min(rng.uniform(15, 23), 0.36 * scanner.slices * scanner.slice_mm)
    growth = rng.uniform(0, 1)
    round_nodules = rng.integers(2, 8)
    nodules = rng.uniform([-0.5, -0.55, -0.4, 2.0, 0.15], [0.5, 0.2, 0.7, 5.0, 0.85], (round_nodules, 5))
    lesions = rng.uniform([-0.75, 0.45, -0.7, 2.5, 0.25], [0.75, 0.75, 0.6, 5.0, 0.4], (rng.poisson(0.8), 5))
    return Patient(
        centre=(rng.normal(0, 3), rng.normal(-4, 3), rng.normal(0, 2)),
        roll=rng.normal(0, 0.05),
        semi_axes=(19 + 9 * growth + rng.normal(0, 1.5), 13 + 7 * growth + rng.normal(0, 1.5), height),
        collar=rng.uniform(0.3, 0.7),
        peripheral=rng.uniform(0.38, 0.88),
        hyperplasia=0.6 + 0.3 * growth,
        rectum=(rng.uniform(16, 19), rng.uniform(15, 18)) if coil else (rng.uniform(8, 19), rng.uniform(7, 15)),
        stool=AIR if rng.random() < 0.6 else rng.uniform(0.25, 0.7),
        bladder=rng.uniform(22, 38),
        body_mm=rng.uniform(66, 84),
        nodules=nodules,
        lesions=lesions,
    )


def _place(patient: Patient, shape: tuple[int, ...], spacing: NDArray[np.float64], rng: np.random.Generator) -> Grid:
    """Lay the grid through the patient, slightly rolled and warped so that nobody is symmetric."""
    x, y, z = (
        ((np.arange(length) - (length - 1) / 2) * step - middle).astype(np.float32)
        for length, step, middle in zip(shape, spacing, patient.centre, strict=True)
    )
    x, y, z = x[:, None, None], y[None, :, None], z[None, None, :]
    cos, sin = np.float32(np.cos(patient.roll)), np.float32(np.sin(patient.roll))
    warp = 1.9 * noise(rng, shape, 12 / spacing) + 0.5 * noise(rng, shape, 3 / spacing)
    return Grid(cos * x + sin * y + warp, cos * y - sin * x + _elsewhere(warp), z)


def _elsewhere(field: Field) -> Field:
    """The same noise half a field of view away: as good as a new one, since noise is periodic, and much cheaper."""
    return np.roll(field, (field.shape[0] // 2, field.shape[1] // 2), axis=(0, 1))


def _ellipse(
    x: Field,
    y: Field,
    centre: tuple[Field | float, Field | float],
    axes: tuple[Field | float, Field | float],
    tilt: float = 0,
) -> Field:
    """Roughly how many mm inside an ellipse each voxel lies; centre and axes may change from slice to slice."""
    cos, sin = np.float32(np.cos(tilt)), np.float32(np.sin(tilt))
    right, back = x - np.float32(centre[0]), y - np.float32(centre[1])
    along, across = np.float32(axes[0]), np.float32(axes[1])
    distance = np.sqrt(((cos * right + sin * back) / along) ** 2 + ((cos * back - sin * right) / across) ** 2)
    level: Field = (1 - distance) * np.minimum(along, across)
    return level


def _cover(signal: Field, level: Field, value: Field | float, edge_mm: float = 1.0) -> None:
    """Paint a tissue over the signal, in place."""
    signal += ramp(level, edge_mm) * (np.float32(value) - signal)


def paint_pelvis(
    patient: Patient, scanner: Scanner, grid: Grid, spacing: NDArray[np.float64], rng: np.random.Generator
) -> tuple[Field, NDArray[np.bool_]]:
    """Paint the pelvis, from the skin inwards.

    Returns:
        The T2 signal (W, H, D), 0 to about 1, and the prostate (W, H, D).
    """
    shape = grid.x.shape
    fine, coarse = noise(rng, shape, 0.9 / spacing), noise(rng, shape, 3.0 / spacing)
    signal = np.full(shape, AIR, np.float32)
    fat = scanner.fat * (FAT + 0.05 * coarse + 0.03 * fine)
    lumps = noise(rng, shape, 6.0 / spacing)
    gland = _gland(patient, grid, lumps)

    _cover(signal, _ellipse(grid.x, grid.y, (0, 4), (165, patient.body_mm)), fat)
    _paint_wall(signal, grid, scanner, fine, coarse)
    _paint_cavity(signal, grid, patient, scanner, fat, fine, coarse)
    _paint_bladder(signal, grid, patient, fine, coarse)
    _paint_rectum(signal, grid, patient, scanner, fine)
    _paint_gland(signal, gland, grid, patient, fine, coarse)
    # no two readers agree on an edge: this one is out by a millimetre here and there
    return signal, gland + 1.1 * _elsewhere(lumps) > 0


def _paint_wall(signal: Field, grid: Grid, scanner: Scanner, fine: Field, coarse: Field) -> None:
    """Muscles, bones and vessels round the pelvis. Both sides at once, by the distance from the midline."""
    side, y, z = np.abs(grid.x), grid.y, grid.z
    low, high = ramp(-z - 4, 12), ramp(z + 2, 12)
    muscle = MUSCLE + 0.02 * fine + 0.02 * coarse
    marrow = (0.3 + 0.7 * scanner.fat) * (MARROW + 0.05 * fine + 0.06 * coarse)

    _cover(signal, _ellipse(side, y, (52, 60), (52, 15 + 4 * high), tilt=-0.42), muscle)  # gluteus
    _cover(signal, 0.7 - np.abs(side - 70 + 0.7 * y) - 9 * (y < 42), 0.4 * FAT)  # a septum in it
    _cover(
        signal, _ellipse(side, y, (46, -34), (46, 15), tilt=-0.45) - 8 * high, muscle
    )  # pectineus, obturator externus
    _cover(signal, _ellipse(grid.x, y, (0, -54), (46, 6)) - 20 * low, muscle)  # rectus abdominis
    for centre, axes, tilt, fade in (
        ((22, -38), (20, 8), 0.45, 9 * high),  # pubis
        ((62, 20), (11, 20), 0.5, 14 * high),  # ischium
        ((52, -8), (7, 28), -0.15, 9 * low),  # acetabulum
    ):
        bone = _ellipse(side, y, centre, axes, tilt) - fade
        _cover(signal, bone, CORTEX)
        _cover(signal, bone - 2, marrow)
    head = _ellipse(side, y, (79, -8), (24, 24)) - 0.015 * (z - 8) ** 2
    _cover(signal, head + 4, CORTEX)
    _cover(signal, head + 1.5, 0.4 * FLUID)
    _cover(signal, head, CORTEX)
    _cover(signal, head - 2, 1.2 * marrow)
    for centre, radius, value in (((56, -46), 5, AIR), ((46, -44), 6, 0.12), ((64, -52), 3, 0.4)):  # femoral vessels
        vessel = _ellipse(side, y, centre, (radius, radius))
        _cover(signal, vessel + 1, WALL)
        _cover(signal, vessel, value)


def _paint_cavity(
    signal: Field, grid: Grid, patient: Patient, scanner: Scanner, fat: Field, fine: Field, coarse: Field
) -> None:
    """The pelvic cavity: obturator internus, fat with strands and veins, the pelvic floor."""
    side, y, z = np.abs(grid.x), grid.y, grid.z
    high = ramp(z + 4, 20)
    wide = patient.semi_axes[0] + 3
    cavity = _ellipse(grid.x, y, (0, 9), (wide + 8 + 6 * high, 46))
    _cover(signal, _ellipse(side, y, (wide + 14 + 5 * high, 0), (9, 34), tilt=0.16), MUSCLE + 0.02 * fine)
    strands = np.exp(-((coarse / 0.12) ** 2))
    _cover(signal, cavity, np.clip(fat * (0.85 - 0.4 * strands) + 0.04 * fine, 0.05, None))
    _cover(signal, _ellipse(grid.x, y, (0, 56), (3, 16)), 0.7 * MUSCLE)  # natal cleft and coccyx
    floor = _ellipse(grid.x, y, (0, 16), (13 + (wide - 9) * ramp(z + 8, 30), 36))
    _cover(signal, 1.4 - np.abs(floor), MUSCLE)

    around = _ellipse(grid.x, y, (0, -3), (wide + 3, patient.semi_axes[1] + 9))
    veins = np.minimum(0.4 * fine + coarse - 1.5, 0.3 * (around - 0.2 * np.abs(z)))
    _cover(signal, veins, 0.85 * FLUID)
    bud = _ellipse(grid.x, y, (0, -4), (7, 8)) - 0.4 * np.maximum(z + 0.6 * patient.semi_axes[2], 0)
    _cover(signal, bud, WALL + 0.05 * fine)  # sphincter below the apex
    _cover(signal, bud - 4, 0.45)


def _paint_bladder(signal: Field, grid: Grid, patient: Patient, fine: Field, coarse: Field) -> None:
    """Bladder and seminal vesicles, which sit on the base and blur its end."""
    base = 0.55 * patient.semi_axes[2]
    width = patient.bladder * np.sqrt(np.clip((grid.z - base) / 18, 0.01, 1))
    bladder = _ellipse(grid.x, grid.y, (0, -14 - 0.2 * grid.z), (width, 0.75 * width)) - 6 * (grid.z < base)
    vesicle = _ellipse(np.abs(grid.x), grid.y, (13, patient.semi_axes[1] - 4), (15, 5), tilt=-0.2)
    vesicle = vesicle - 0.8 * np.abs(grid.z - patient.semi_axes[2])
    _cover(signal, vesicle, 0.25 + 0.65 * ramp(np.abs(coarse + 0.4 * fine) - 0.5, 0.5))
    _cover(signal, bladder, WALL)
    _cover(signal, bladder - 3.5, FLUID)


def _paint_rectum(signal: Field, grid: Grid, patient: Patient, scanner: Scanner, fine: Field) -> None:
    """The rectum, narrow at the pelvic floor, with gas, stool or a coil in its balloon."""
    width, depth = patient.rectum
    opening = 0.45 + 0.55 * ramp(grid.z + 8, 20)
    y = patient.semi_axes[1] + 1 + depth * opening
    rectum = _ellipse(grid.x, grid.y, (0, y), (width * opening, depth * opening))
    _cover(signal, rectum + 3, WALL + 0.04 * fine)
    _cover(signal, 0.8 - np.abs(rectum + 0.4), 0.6)  # mucosa
    if scanner.coil == "none":
        _cover(signal, rectum, patient.stool + 0.3 * patient.stool * np.abs(fine))
        return
    _cover(signal, rectum, {"air": AIR, "fluid": 0.9 * FLUID}[scanner.coil])
    rod = _ellipse(grid.x, grid.y, (0, y - 2), (3.5, 3.5))
    _cover(signal, rod, 0.5 if scanner.coil == "air" else CORTEX)
    _cover(signal, rod - 1.5, CORTEX)


def _behind(patient: Patient) -> float:
    """Where the rectum's centre lies behind the prostate's, in mm; it dents the gland a little."""
    return patient.semi_axes[1] + patient.rectum[1] + 1.0


def _gland(patient: Patient, grid: Grid, lumps: Field) -> Field:
    """How many mm inside the prostate each voxel lies: an egg with a dented back and a lumpy contour."""
    width, depth, height = patient.semi_axes
    up = grid.z / height
    taper = np.sqrt(np.clip(1 - np.abs(up) ** 2.4, 0.01, 1)) * (1 - 0.12 * np.clip(-up, 0, 1))
    egg = _ellipse(grid.x, grid.y, (0, -2.5 * up), (width * taper, depth * taper))
    rectum = _ellipse(grid.x, grid.y, (0, _behind(patient)), (patient.rectum[0], patient.rectum[1]))
    level = np.minimum(egg, -rectum - 2.5) + 0.9 * lumps
    return np.where(np.abs(up) < 1, level, -10).astype(np.float32)


def _paint_gland(signal: Field, gland: Field, grid: Grid, patient: Patient, fine: Field, coarse: Field) -> None:
    """Peripheral zone, transition zone with nodules, fibromuscular stroma in front, lesions, capsule, urethra."""
    width, depth, height = patient.semi_axes
    up = grid.z / height
    collar = patient.collar + 0.06 * fine + 0.10 * coarse
    _cover(signal, gland + 3.5 + 1.5 * coarse, collar * (1 - 0.4 * ramp(-grid.y, 12)), 3)
    _cover(signal, gland, patient.peripheral + 0.08 * fine + 0.09 * coarse, 1.5)
    inner = patient.hyperplasia * (0.55 + 0.45 * ramp(up + 0.3, 1.2))
    zone = _ellipse(grid.x, grid.y, (0, -0.22 * depth), (1.1 * inner * width, 0.95 * inner * depth))
    zone = np.minimum(zone, gland)
    _cover(signal, zone + 0.8, WALL, 1.5)
    _cover(signal, zone, 0.38 + 0.08 * fine + 0.10 * np.tanh(1.5 * coarse), 1.5)
    for x, y, z, radius, value in patient.nodules.tolist():
        offset = np.abs(grid.z - z * height)
        nodule = np.minimum(_ellipse(grid.x, grid.y, (x * width, y * depth), (radius, radius)) - 0.7 * offset, zone)
        _cover(signal, nodule + 0.8, WALL)
        _cover(signal, nodule, value + 0.06 * fine)
    front = np.minimum(_ellipse(grid.x, grid.y, (0, -0.95 * depth), (0.5 * width, 0.3 * depth)), gland)
    _cover(signal, front, WALL, 3)
    for x, y, z, radius, value in patient.lesions.tolist():
        offset = np.abs(grid.z - z * height)
        lesion = _ellipse(grid.x, grid.y, (x * width, y * depth), (1.3 * radius, radius)) - 0.7 * offset
        _cover(signal, np.minimum(lesion, gland), value, 2)
    _cover(signal, np.minimum(_ellipse(grid.x, grid.y, (0, 0.1 * depth), (2, 2.5)), gland), 0.8)  # urethra
    _cover(signal, 0.45 - np.abs(gland + 0.3), WALL)  # capsule


def scan(
    signal: Field,
    scanner: Scanner,
    grid: Grid,
    patient: Patient,
    spacing: NDArray[np.float64],
    rng: np.random.Generator,
) -> NDArray[np.int16]:
    """Turn T2 signal into the scanner's numbers: contrast, coil, shading, blur, Rician noise, unit.

    Noise is that of a magnitude image, the length of a complex number with Gaussian noise in both parts (Gudbjartsson
    and Patz, 1995), so air is not 0.
    """
    shape = signal.shape
    image = np.clip(signal, 0, None) ** (scanner.gamma * rng.lognormal(0, 0.12))
    slope, bend = rng.normal(0, 1, (2, 2))
    across, down = grid.x / (scanner.fov_mm / 2), grid.y / (scanner.fov_mm / 2)
    image *= np.exp(
        scanner.shading * (slope[0] * across + slope[1] * down + bend[0] * across * down - np.abs(bend[1]) * down**2)
    )
    if scanner.coil == "air":
        reach = np.hypot(grid.x, grid.y - _behind(patient)) / patient.rectum[0]
        image *= 0.12 + 2.6 / np.clip(reach, 0.9, None) ** 2.2
    if scanner.band:
        image *= 0.04 + 0.96 * ramp(grid.y + 34, 14)
    image = ndimage.gaussian_filter(image, (scanner.blur_mm / spacing[0], scanner.blur_mm / spacing[1], 0))
    real, imaginary = scanner.noise * rng.standard_normal((2, *shape), dtype=np.float32)
    unit = scanner.unit * rng.lognormal(0, 0.15)
    stored: Field = np.rint(unit * np.hypot(image + real, imaginary))
    return np.clip(stored, 0, 32767).astype(np.int16)
