/* What became of a call, as probes give it. */
#include "compat/features.h"

#include <errno.h>

int outcome_of(bool done)
{
    return done ? 0 : errno ? errno : WRONG;
}
