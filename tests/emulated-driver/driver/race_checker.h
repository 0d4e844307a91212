// The race checker: every load and store of a checked kernel, against what other threads did to the same bytes.
#pragma once

void race_checker_begin_launch();
void race_checker_begin_block();
