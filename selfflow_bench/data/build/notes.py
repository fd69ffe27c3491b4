"""Builds the note set: single notes of the 128 General MIDI programs, sampled instruments played by a synthesizer.

Each note is 8192 samples of 8 kHz mono (1.024 s), held for 0.8 s. Programs that share a recording are in one split.
"""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import TypedDict

import numpy as np
import soundfile
import tinysoundfont
from numpy.typing import NDArray
from scipy.signal import butter, resample_poly, sosfilt

from selfflow_bench.data.build.embedded_set import Row, Split, hash_fraction, write_embedded_set
from selfflow_bench.data.build.packages import DebianPackage
from selfflow_bench.data.build.soundfont import samples_of_programs, sharing_groups

PACKAGE = DebianPackage(
    "fluid-soundfont-gm", "3.1-5.3", "6f531493ac4e4d9772fd96b2488ea1790af81c196135fbdd25997da0781fc60e"
)
SOUNDFONT = Path("usr/share/sounds/sf2/FluidR3_GM.sf2")
RATE, SAMPLES, HELD = 8000, 8192, 6400
# The synthesizer does not filter when it transposes, so notes rendered at 8 kHz alias audibly (saw lead at C6: 8 dB
# below the note). Rendering at 32 kHz and resampling with a filter leaves that above 4 kHz, where it is cut.
OVERSAMPLING = 4
VELOCITIES = {"soft": 45, "medium": 85, "loud": 125}
PITCHES_PER_PROGRAM, PITCH_STEP, LOWEST_PITCH = 7, 7, 36
# Some recordings carry an offset of up to a fifth of their peak, which is no sound but most of the note's energy.
HIGH_PASS_HZ = 20
# Peak of a program's loudest note, -10 dB of full scale. Every program gets one gain, so instruments are about equally
# loud while soft and loud notes of one instrument keep their distance.
PEAK = 0.3162
# Below this root mean square (-50 dB of full scale) a note counts as silent: out of the instrument's range.
SILENCE = 0.00316
VALIDATION_PROGRAMS_PER_FAMILY = 2
# Amplitudes are multiples of this, 13 of 16 bits: three bits less of what is mostly noise save a third of the file.
STEP = 8
# Larger groups of programs that share recordings stay in train: one of them would be half of the validation split.
LARGEST_VALIDATION_GROUP = 3
FAMILIES = (
    "piano", "chromatic percussion", "organ", "guitar", "bass", "strings", "ensemble", "brass", "reed", "pipe",
    "synth lead", "synth pad", "synth effects", "ethnic", "percussive", "sound effects",
)  # fmt: skip
# General MIDI level 1, sound set.
PROGRAMS = (
    "acoustic grand piano", "bright acoustic piano", "electric grand piano", "honky-tonk piano", "electric piano 1",
    "electric piano 2", "harpsichord", "clavinet", "celesta", "glockenspiel", "music box", "vibraphone", "marimba",
    "xylophone", "tubular bells", "dulcimer", "drawbar organ", "percussive organ", "rock organ", "church organ",
    "reed organ", "accordion", "harmonica", "tango accordion", "nylon string guitar", "steel string guitar",
    "jazz electric guitar", "clean electric guitar", "muted electric guitar", "overdriven guitar",
    "distortion guitar", "guitar harmonics", "acoustic bass", "fingered electric bass", "picked electric bass",
    "fretless bass", "slap bass 1", "slap bass 2", "synth bass 1", "synth bass 2", "violin", "viola", "cello",
    "contrabass", "tremolo strings", "pizzicato strings", "orchestral harp", "timpani", "string ensemble 1",
    "string ensemble 2", "synth strings 1", "synth strings 2", "choir aahs", "voice oohs", "synth voice",
    "orchestra hit", "trumpet", "trombone", "tuba", "muted trumpet", "french horn", "brass section",
    "synth brass 1", "synth brass 2", "soprano sax", "alto sax", "tenor sax", "baritone sax", "oboe", "english horn",
    "bassoon", "clarinet", "piccolo", "flute", "recorder", "pan flute", "blown bottle", "shakuhachi", "whistle",
    "ocarina", "square lead", "sawtooth lead", "calliope lead", "chiff lead", "charang lead", "voice lead",
    "fifths lead", "bass and lead", "new age pad", "warm pad", "polysynth pad", "choir pad", "bowed pad",
    "metallic pad", "halo pad", "sweep pad", "rain", "soundtrack", "crystal", "atmosphere", "brightness", "goblins",
    "echoes", "sci-fi", "sitar", "banjo", "shamisen", "koto", "kalimba", "bagpipe", "fiddle", "shanai",
    "tinkle bell", "agogo", "steel drums", "woodblock", "taiko drum", "melodic tom", "synth drum", "reverse cymbal",
    "guitar fret noise", "breath noise", "seashore", "bird tweet", "telephone ring", "helicopter", "applause",
    "gunshot",
)  # fmt: skip
_PITCH_CLASSES = ("C", "C sharp", "D", "D sharp", "E", "F", "F sharp", "G", "G sharp", "A", "A sharp", "B")


def build(out: Path, directory: Path) -> None:
    """Fetch the package into `directory` and write the set into `out`."""
    path = PACKAGE.fetch(directory) / SOUNDFONT
    validation = validation_programs(sharing_groups(samples_of_programs(path)))
    synthesizer = Synthesizer(path)
    splits: dict[Split, list[Row]] = {"train": [], "validation": []}
    seen: set[bytes] = set()
    for program in range(len(PROGRAMS)):
        for row in _notes_of(synthesizer, program):
            # A program with no velocity layers or key ranges can answer two requests with one sound.
            if row["audio"] not in seen:
                seen.add(row["audio"])
                splits["validation" if program in validation else "train"].append(row)
    write_embedded_set(out, splits)


def pitch_name(pitch: int) -> str:
    """Scientific name of a MIDI key: 60 -> "C4"."""
    return f"{_PITCH_CLASSES[pitch % 12]}{pitch // 12 - 1}"


def pitches_of(program: int) -> list[int]:
    """Keys a program plays: fifths from C2 up, shifted by program so that the set as a whole covers every key."""
    return [LOWEST_PITCH + program % PITCH_STEP + PITCH_STEP * index for index in range(PITCHES_PER_PROGRAM)]


def validation_programs(groups: list[frozenset[int]]) -> frozenset[int]:
    """Programs of the validation split: whole groups, smallest first, until every family has enough."""
    chosen: set[int] = set()
    order = sorted(groups, key=lambda group: (len(group), hash_fraction(PROGRAMS[min(group)])))
    for family in range(len(FAMILIES)):
        for group in order:
            enough = sum(program // 8 == family for program in chosen) >= VALIDATION_PROGRAMS_PER_FAMILY
            if not enough and len(group) <= LARGEST_VALIDATION_GROUP and any(p // 8 == family for p in group):
                chosen |= group
    return frozenset(chosen)


class Note(TypedDict):
    """A row of the set."""

    name: str
    caption: str
    program: int
    family: str
    pitch: int
    velocity: int
    audio: bytes


class Synthesizer:
    """Plays one note at a time from a SoundFont."""

    def __init__(self, path: Path) -> None:
        # Without chorus, reverb or limiter; the quiet gain keeps loud programs from clipping before normalisation.
        self._synthesizer = tinysoundfont.Synth(gain=-12, samplerate=RATE * OVERSAMPLING)
        self._soundfont = self._synthesizer.sfload(str(path))

    def note(self, program: int, pitch: int, velocity: int) -> NDArray[np.float64]:
        """The note's wave [SAMPLES] at RATE, both channels averaged."""
        # Without these two the tail of the last note would leak into this one.
        self._synthesizer.sounds_off()
        self._synthesizer.generate(64)
        self._synthesizer.program_select(0, self._soundfont, 0, program)
        self._synthesizer.noteon(0, pitch, velocity)
        held = self._generate(HELD)
        self._synthesizer.noteoff(0, pitch)
        wave = np.concatenate([held, self._generate(SAMPLES - HELD)])
        mono = resample_poly(wave.mean(axis=1, dtype=np.float64), 1, OVERSAMPLING)
        return np.asarray(sosfilt(butter(2, HIGH_PASS_HZ, "highpass", fs=RATE, output="sos"), mono))

    def _generate(self, samples: int) -> NDArray[np.float32]:
        buffer = self._synthesizer.generate(samples * OVERSAMPLING)
        return np.frombuffer(bytes(buffer), np.float32).reshape(-1, 2)


def _notes_of(synthesizer: Synthesizer, program: int) -> Iterator[Note]:
    waves = {
        (pitch, dynamics): synthesizer.note(program, pitch, velocity)
        for pitch in pitches_of(program)
        for dynamics, velocity in VELOCITIES.items()
    }
    gain = PEAK / max(np.abs(wave).max() for wave in waves.values())
    for (pitch, dynamics), wave in waves.items():
        pcm = (np.round(wave * gain * 32767 / STEP) * STEP).astype(np.int16)
        if np.sqrt(np.mean((pcm / 32768) ** 2)) < SILENCE:
            continue
        yield {
            "name": f"{PROGRAMS[program].replace(' ', '-')}-{pitch}-{VELOCITIES[dynamics]}",
            "caption": f"{PROGRAMS[program]}, {pitch_name(pitch)}, {dynamics}",
            "program": program,
            "family": FAMILIES[program // 8],
            "pitch": pitch,
            "velocity": VELOCITIES[dynamics],
            "audio": _flac(pcm),
        }


def _flac(pcm: NDArray[np.int16]) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, pcm, RATE, format="FLAC", subtype="PCM_16", compression_level=1.0)
    return buffer.getvalue()
