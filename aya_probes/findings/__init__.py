"""What a run shows, question by question, in plain sentences with numbers.

The page and the report take their sentences from here (``questions.find``). A question that a run
cannot answer keeps its place: what is not established and what is untestable are findings too.
"""
