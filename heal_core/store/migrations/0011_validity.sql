-- The validity test of PURE: shortcuts that were built, natural texts of the same prefixes, and which score tells them apart.

CREATE TABLE validity_tests (
    validity_test_id VARCHAR NOT NULL,
    run_id VARCHAR NOT NULL,
    validity_id VARCHAR NOT NULL,
    settings VARCHAR NOT NULL,
    num_problems INTEGER NOT NULL,
    num_prefixes INTEGER NOT NULL,
    num_hinted INTEGER NOT NULL,
    num_continuations INTEGER NOT NULL,
    num_verified INTEGER NOT NULL,
    num_prefixes_used INTEGER NOT NULL,
    winner VARCHAR,
    chosen VARCHAR NOT NULL,
    verdict VARCHAR NOT NULL
);
COMMENT ON TABLE validity_tests IS 'Validity tests of PURE''s scores (docs/method.md, section 3), by heal validate-pure or by a run with pure.score: auto.';
COMMENT ON COLUMN validity_tests.validity_test_id IS 'Content key.';
COMMENT ON COLUMN validity_tests.run_id IS 'The run whose rollouts and bands it rests on.';
COMMENT ON COLUMN validity_tests.validity_id IS 'Content key of the run, the settings and the version of the test; 12 hexadecimal digits. It is the arm of the test''s rows in run_rows.';
COMMENT ON COLUMN validity_tests.settings IS 'The settings pure.validity, as JSON.';
COMMENT ON COLUMN validity_tests.num_problems IS 'Hard training problems with a prefix.';
COMMENT ON COLUMN validity_tests.num_prefixes IS 'Wrong rollouts of them, cut before their breakpoint.';
COMMENT ON COLUMN validity_tests.num_hinted IS 'Prefixes with an accepted hint, under which all their texts are read; the others are left out.';
COMMENT ON COLUMN validity_tests.num_continuations IS 'Continuations of those without a hint.';
COMMENT ON COLUMN validity_tests.num_verified IS 'Those that are correct and were not cut.';
COMMENT ON COLUMN validity_tests.num_prefixes_used IS 'Prefixes with a verified continuation: of these are the texts.';
COMMENT ON COLUMN validity_tests.winner IS 'The score with the largest AUROC over all kinds of shortcuts; null where nothing could be compared.';
COMMENT ON COLUMN validity_tests.chosen IS 'The score that pure.score: auto takes: the winner if it is validated, else ratio.';
COMMENT ON COLUMN validity_tests.verdict IS 'validated: the winner beats the better of length and leak count by the lower end of the interval; else unproven.';

CREATE TABLE validity_texts (
    validity_text_id VARCHAR NOT NULL,
    run_id VARCHAR NOT NULL,
    validity_id VARCHAR NOT NULL,
    kind VARCHAR NOT NULL,
    problem_id VARCHAR NOT NULL,
    path_id VARCHAR NOT NULL,
    hint_id VARCHAR,
    sources VARCHAR[] NOT NULL,
    trajectory_id VARCHAR,
    score_id VARCHAR,
    outcome VARCHAR NOT NULL,
    reason VARCHAR,
    gate VARCHAR,
    ratio DOUBLE,
    jump DOUBLE,
    reliance DOUBLE,
    length INTEGER,
    mean_perplexity DOUBLE,
    final_uncertainty DOUBLE,
    num_assertions INTEGER
);
COMMENT ON TABLE validity_texts IS 'The texts of validity tests, also those that could not be built or were refused before a score.';
COMMENT ON COLUMN validity_texts.validity_text_id IS 'Content key.';
COMMENT ON COLUMN validity_texts.run_id IS 'The run.';
COMMENT ON COLUMN validity_texts.validity_id IS 'The test, in validity_tests.';
COMMENT ON COLUMN validity_texts.kind IS 'natural, or a kind of shortcut: pasted (the answer after a random step), rationalised (written after the answer was stated), borrowed (another problem''s reasoning).';
COMMENT ON COLUMN validity_texts.problem_id IS 'The problem.';
COMMENT ON COLUMN validity_texts.path_id IS 'The wrong rollout whose prefix it continues.';
COMMENT ON COLUMN validity_texts.hint_id IS 'The hint of that path, under which reliance reads it; null where hints.arm is answer, which it reads under.';
COMMENT ON COLUMN validity_texts.sources IS 'The sampled texts that a shortcut is made of, the first its natural counterpart; empty for natural texts.';
COMMENT ON COLUMN validity_texts.trajectory_id IS 'The text, in trajectories; null where it could not be built.';
COMMENT ON COLUMN validity_texts.score_id IS 'Its scores, in scores; null where it was not read.';
COMMENT ON COLUMN validity_texts.outcome IS 'scored; rejected (by PURE, before a score); not_verified (a shortcut that the verifier does not call correct, left out); not_built.';
COMMENT ON COLUMN validity_texts.reason IS 'Why it was not scored: PURE''s reason, the verifier''s, no_reasoning or no_other_problem; null when scored.';
COMMENT ON COLUMN validity_texts.gate IS 'The gate that would have refused it before PURE, counted only; null when all pass, or it was not built.';
COMMENT ON COLUMN validity_texts.ratio IS 'PURE''s score ratio; null unless scored, as the next two.';
COMMENT ON COLUMN validity_texts.jump IS 'PURE''s score jump.';
COMMENT ON COLUMN validity_texts.reliance IS 'PURE''s score reliance, nats per token.';
COMMENT ON COLUMN validity_texts.length IS 'Tokens after the prefix; null where it was not built.';
COMMENT ON COLUMN validity_texts.mean_perplexity IS 'Mean of the steps'' perplexities P_k from the prefix on; null unless scored.';
COMMENT ON COLUMN validity_texts.final_uncertainty IS 'U after the last step, nats per token; null where it was not read.';
COMMENT ON COLUMN validity_texts.num_assertions IS 'How often it asserts the answer after the prefix, the leak count; null where it was not built.';

CREATE TABLE validity_aurocs (
    validity_auroc_id VARCHAR NOT NULL,
    run_id VARCHAR NOT NULL,
    validity_id VARCHAR NOT NULL,
    position INTEGER NOT NULL,
    measure VARCHAR NOT NULL,
    kind VARCHAR NOT NULL,
    direction VARCHAR NOT NULL,
    num_problems INTEGER NOT NULL,
    num_shortcuts INTEGER NOT NULL,
    num_natural INTEGER NOT NULL,
    auroc DOUBLE NOT NULL,
    low DOUBLE,
    high DOUBLE,
    difference DOUBLE,
    difference_low DOUBLE,
    difference_high DOUBLE
);
COMMENT ON TABLE validity_aurocs IS 'How well each score of PURE and each trivial baseline tells shortcuts from natural texts, of those that were scored.';
COMMENT ON COLUMN validity_aurocs.validity_auroc_id IS 'Content key.';
COMMENT ON COLUMN validity_aurocs.run_id IS 'The run.';
COMMENT ON COLUMN validity_aurocs.validity_id IS 'The test, in validity_tests.';
COMMENT ON COLUMN validity_aurocs.position IS 'Order of the rows, from 0.';
COMMENT ON COLUMN validity_aurocs.measure IS 'ratio, jump or reliance; or a baseline: length, mean_perplexity, final_uncertainty, num_assertions.';
COMMENT ON COLUMN validity_aurocs.kind IS 'The kind of shortcut, or all.';
COMMENT ON COLUMN validity_aurocs.direction IS 'higher: a shortcut has more of it, as for all scores of PURE; lower: less. A baseline has the direction that fits all kinds together better.';
COMMENT ON COLUMN validity_aurocs.num_problems IS 'Problems of the texts compared; the bootstrap draws these.';
COMMENT ON COLUMN validity_aurocs.num_shortcuts IS 'Shortcuts that were scored.';
COMMENT ON COLUMN validity_aurocs.num_natural IS 'Natural texts that were scored.';
COMMENT ON COLUMN validity_aurocs.auroc IS 'Probability that a shortcut ranks above a natural text in that direction, ties half; 0.5 is chance.';
COMMENT ON COLUMN validity_aurocs.low IS 'Lower end of its 95 % interval over problems; null for a single problem.';
COMMENT ON COLUMN validity_aurocs.high IS 'Upper end; null likewise.';
COMMENT ON COLUMN validity_aurocs.difference IS 'auroc minus the larger of those of length and num_assertions; null for baselines.';
COMMENT ON COLUMN validity_aurocs.difference_low IS 'Lower end of its 95 % interval, by the same resamples, against the better of the two in each; null likewise.';
COMMENT ON COLUMN validity_aurocs.difference_high IS 'Upper end; null likewise.';

COMMENT ON COLUMN trajectories.kind IS 'rollout, hint, guided or repair; of a validity test continuation (of a prefix without a hint, or after the answer was stated) or shortcut (built from the tokens of others).';
COMMENT ON COLUMN recipes.kind IS 'rollout, hint, guided, repair, continuation, shortcut, score, or imported: texts that were written elsewhere.';
COMMENT ON COLUMN trajectories.parent_id IS 'For hints, repairs, continuations and shortcuts: the wrong rollout they belong to; for a continuation after the answer was stated: the natural one whose words state it.';
COMMENT ON COLUMN decisions.decision IS 'A band; kept or dropped; met or not_met for a quota; frozen for the threshold of the run; for its score validated or unproven; of a breakpoint certain, rescored (exact, from reading the text again) or uncertain.';
COMMENT ON COLUMN decisions.reason IS 'Why it was dropped; for the threshold and the score of the run the name of the score; null when kept. Of a rescored breakpoint: same_step, or moved from where the middles of the intervals had it.';
COMMENT ON COLUMN decisions.value IS 'The number it rests on: pass rate of a band, PURE score, threshold, rank of the cap; for a quota how many continuations it left out; for the run''s score the lower end of its difference to the baselines; null where there is none.';
