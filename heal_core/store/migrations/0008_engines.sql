-- Engines that know only the most probable tokens, servers that cache prompts, and texts that were given up early.

ALTER TABLE trajectories ADD COLUMN entropy_source VARCHAR;
ALTER TABLE trajectories ADD COLUMN num_cached_tokens INTEGER;
COMMENT ON COLUMN trajectories.finish_reason IS 'stop (the model ended its turn), length (cut at the limit) or hopeless (given up where it looped or a line ran on, by early_stop).';
COMMENT ON COLUMN trajectories.mean_entropy_nats IS 'Mean token entropy (definition D3), nats, of the middles of the intervals where entropies are not exact; null when no token was sampled.';
COMMENT ON COLUMN trajectories.entropy_source IS 'exact, or top_20: certified intervals from the 20 most probable tokens (definition D3). Null, which means exact, in rows from before schema 0008.';
COMMENT ON COLUMN trajectories.num_cached_tokens IS 'Prompt tokens that the engine had read before, for another sample; null where it does not say.';

ALTER TABLE profiles ADD COLUMN entropy_source VARCHAR;
ALTER TABLE profiles ADD COLUMN is_certain BOOLEAN;
ALTER TABLE profiles ADD COLUMN step_entropy_radii DOUBLE[];
COMMENT ON COLUMN profiles.entropy_source IS 'What its entropies are from: exact, top_20 (the middles of intervals), or rescored (exact, from reading the text again). Null, which means exact, in rows from before schema 0008.';
COMMENT ON COLUMN profiles.is_certain IS 'Whether no value within the intervals could move the breakpoint; true where entropies are exact. Null in rows from before schema 0008.';
COMMENT ON COLUMN profiles.step_entropy_radii IS 'Half the width of the certified interval of each step''s entropy, nats; null where entropies are exact.';

COMMENT ON COLUMN decisions.phase IS 'band, breakpoint (of rollouts whose entropies are not exact), path, hint_gate, quota (per problem with hinted paths, where repair.quota is set), gate, gate_base (base rollouts, counted only), pure_threshold (of the run), pure or cap.';
COMMENT ON COLUMN decisions.decision IS 'A band; kept or dropped; met or not_met for a quota; frozen for the threshold of the run; of a breakpoint certain, rescored (exact, from reading the text again) or uncertain.';
COMMENT ON COLUMN decisions.reason IS 'Why it was dropped; for the threshold the name of the score; null when kept. Of a rescored breakpoint: same_step, or moved from where the middles of the intervals had it.';
COMMENT ON COLUMN decisions.value IS 'The number it rests on: pass rate of a band, PURE score, threshold, rank of the cap; for a quota how many continuations it left out; null where there is none.';
COMMENT ON COLUMN quarantine.work IS 'What was being made: rollouts, profiles, rescoring, hints try 0, repairs, guided, pure, equal_tokens, evaluation and the arm; null for a row of a source.';

ALTER TABLE scores ADD COLUMN seconds DOUBLE;
COMMENT ON COLUMN scores.seconds IS 'Its share of the scorer''s wall time, by tokens; null in rows from before schema 0008.';

COMMENT ON TABLE run_events IS 'What happened to a run: started, priced, phase, completed, stopped, failed.';
COMMENT ON COLUMN run_events.event IS 'started, priced (its prices are others than were noted before), phase, completed, stopped (on purpose, at a limit) or failed.';
COMMENT ON COLUMN run_events.phase IS 'For phase: the one that closed; for stopped and failed: the one it broke off in.';
COMMENT ON COLUMN run_events.detail IS 'For phase, stopped and failed: seconds of wall time, what was newly made and spent in the phase; with the reason or error. For completed: seconds, problems in quarantine. For priced: the prices of teacher, scorer and student. Else empty.';
