-- Training problems are compared with evaluation sets, and every match is kept.

CREATE TABLE run_evaluation_sets (
    run_evaluation_set_id VARCHAR NOT NULL,
    run_id VARCHAR NOT NULL,
    position INTEGER NOT NULL,
    source VARCHAR NOT NULL,
    num_problems BIGINT NOT NULL,
    num_contaminated BIGINT NOT NULL
);
COMMENT ON TABLE run_evaluation_sets IS 'The evaluation sets with which the training problems of a run were compared when it first started.';
COMMENT ON COLUMN run_evaluation_sets.run_evaluation_set_id IS 'Content key.';
COMMENT ON COLUMN run_evaluation_sets.run_id IS 'The run.';
COMMENT ON COLUMN run_evaluation_sets.position IS 'Order, from 0: the held-out problems, then the settings'' order.';
COMMENT ON COLUMN run_evaluation_sets.source IS 'held_out for the run''s own held-out problems, else the path, dataset or function in problems.decontaminate.';
COMMENT ON COLUMN run_evaluation_sets.num_problems IS 'Problems in it.';
COMMENT ON COLUMN run_evaluation_sets.num_contaminated IS 'Rows for training that hold one of them and are in quarantine.';

CREATE TABLE contamination (
    contamination_id VARCHAR NOT NULL,
    run_id VARCHAR NOT NULL,
    source VARCHAR NOT NULL,
    line INTEGER NOT NULL,
    problem_id VARCHAR NOT NULL,
    question VARCHAR NOT NULL,
    evaluation_set VARCHAR NOT NULL,
    evaluation_source VARCHAR NOT NULL,
    evaluation_line INTEGER NOT NULL,
    evaluation_question VARCHAR NOT NULL,
    num_shared INTEGER NOT NULL,
    num_ngrams INTEGER NOT NULL,
    passage VARCHAR NOT NULL
);
COMMENT ON TABLE contamination IS 'Rows for training that hold a problem of an evaluation set, at most 10 matches per row, the largest share first.';
COMMENT ON COLUMN contamination.contamination_id IS 'Content key.';
COMMENT ON COLUMN contamination.run_id IS 'The run.';
COMMENT ON COLUMN contamination.source IS 'Where the row for training is from; with line it is found in quarantine.';
COMMENT ON COLUMN contamination.line IS 'Its line or number, as in quarantine.';
COMMENT ON COLUMN contamination.problem_id IS 'The problem that it would have been; problems has it only if another run took it.';
COMMENT ON COLUMN contamination.question IS 'Its question, up to 2,000 characters.';
COMMENT ON COLUMN contamination.evaluation_set IS 'run_evaluation_sets.source of the set.';
COMMENT ON COLUMN contamination.evaluation_source IS 'The file, URL, dataset or function that the evaluation problem is from.';
COMMENT ON COLUMN contamination.evaluation_line IS 'Its line or number there, from 1.';
COMMENT ON COLUMN contamination.evaluation_question IS 'Its question, up to 2,000 characters.';
COMMENT ON COLUMN contamination.num_shared IS 'How many of the evaluation problem''s distinct n-grams the row holds; n is the setting problems.contamination_words.';
COMMENT ON COLUMN contamination.num_ngrams IS 'How many distinct n-grams the evaluation problem has.';
COMMENT ON COLUMN contamination.passage IS 'Its longest run of words that stand in n-grams of both, case and punctuation aside, up to 2,000 characters.';
