-- What a type of problem needs beyond its answer, and how an answer was found in a text.

ALTER TABLE problems ADD COLUMN spec VARCHAR;
COMMENT ON COLUMN problems.problem_type IS 'How an answer is compared: math, numeric, exact, choice, code or reasoning_gym.';
COMMENT ON COLUMN problems.spec IS 'What the type needs beyond the answer, as JSON: other accepted answers, tolerance and unit, options, tests; null where nothing is.';

ALTER TABLE verdicts ADD COLUMN extraction VARCHAR;
COMMENT ON COLUMN verdicts.extraction IS 'Where the answer was found: boxed, answer_phrase or hash_line; of a program code_block, bare_block or whole_text; null without an answer, and in rows from before schema 0005.';
