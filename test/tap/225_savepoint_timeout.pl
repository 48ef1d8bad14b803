# pooler.savepoint_timeout: how long an error inside a savepoint may wait for a node to become usable
# again.

use strict;
use warnings;
use PolarxParameter;
use PolarxPooler;
use PolarxProxy;
use Test::More;
