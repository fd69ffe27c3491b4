"""Per-token timesteps inside an unmodified transformer, at the price of a few timesteps per sample.

Self-Flow gives every token its own timestep, but a sample has only L distinct ones: two for the target tokens, and
where a model needs them one for its context (text) and one for clean reference tokens. The conditioning path
(sinusoids, MLPs, modulation tables) therefore runs once per *level*: `LevelRows` stands in for the timestep argument of
the ordinary forward, carries ``L * B`` rows where the model expects ``B``, and becomes a real ``[B, S, D]`` tensor only
where it meets the tokens of a sequence, by picking each token's level.

Shapes: B samples, L levels, N target tokens, S tokens of a sequence, D channels.

Knows nothing of families, methods or training. An operation it has no rule for raises `ConditioningError`: a silent
wrong broadcast would be a wrong experiment.
"""

from selfflow_bench.conditioning.levels import ConditioningError, ContextTime, TokenLevels, TokenSequences, TokenTimes
from selfflow_bench.conditioning.rows import LevelRows

__all__ = ["ConditioningError", "ContextTime", "LevelRows", "TokenLevels", "TokenSequences", "TokenTimes"]
