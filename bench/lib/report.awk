# Medians and ratios of the measured rounds, from the files targets and raw.csv: two tables, which
# are also written as variants.csv and ratios.csv to the directory `out`. With `short` the exit
# status is 3 where a floor is missed.
BEGIN {
  FS = " *[|] *"
  columns = split("p50 p99 rate cpu", column, " ")
}

FNR == NR {
  if (!/^#/ && NF == 8) {
    n_targets++
    for (i = 1; i <= 8; i++) target[n_targets, i] = $i
  }
  next
}

{
  split($0, field, ";")
  if (!(field[1] in rounds)) variant[++n_variants] = field[1]
  at = ++rounds[field[1]]
  for (i = 1; i <= columns; i++) figure[field[1], column[i], at] = field[i + 2]
}

# The median of list[1 .. n], which is sorted.
function median(n,    i, j, swap) {
  if (n == 0) return "-"
  for (i = 2; i <= n; i++)
    for (j = i; j > 1 && list[j - 1] > list[j]; j--) {
      swap = list[j]; list[j] = list[j - 1]; list[j - 1] = swap
    }
  return n % 2 ? list[(n + 1) / 2] : (list[n / 2] + list[n / 2 + 1]) / 2
}

function figure_of(name, what,    i, n) {
  for (i = 1; i <= rounds[name]; i++)
    if (figure[name, what, i] != "-") list[++n] = figure[name, what, i] + 0
  return median(n + 0)
}

# The median of the rounds' ratios; "-" where one of the two was not measured.
function ratio_of(name, other, what,    i, n) {
  if (!(name in rounds)) return "-"
  if (other == "-") return figure_of(name, what)
  if (!(other in rounds)) return "-"
  for (i = 1; i <= rounds[name] && i <= rounds[other]; i++)
    if (figure[other, what, i] + 0 > 0) list[++n] = figure[name, what, i] / figure[other, what, i]
  return median(n + 0)
}

function short_number(x) {
  if (x == "-") return x
  return sprintf(x >= 1000 ? "%.0f" : x >= 100 ? "%.1f" : x >= 1 ? "%.2f" : "%.3f", x)
}

function met(x, relation, limit) {
  if (limit == "-" || x == "-") return "-"
  return (relation == "<=" ? x + 0 <= limit + 0 : x + 0 >= limit + 0) ? "yes" : "no"
}

function print_variants(    i, k, name, text, value) {
  printf "%-24s %12s %12s %12s %12s\n", "what", "p50 us", "p99 us", "per second", "CPU us each"
  print "variant,rounds,p50_us,p99_us,per_second,cpu_us" >(out "/variants.csv")
  for (i = 1; i <= n_variants; i++) {
    name = variant[i]
    if (name ~ /^(memory_|idle)/) continue
    printf "%-24s", name
    text = name "," rounds[name]
    for (k = 1; k <= columns; k++) {
      value = short_number(figure_of(name, column[k]))
      printf " %12s", value
      text = text "," (value == "-" ? "" : value)
    }
    printf "\n"
    print text >(out "/variants.csv")
  }
}

function print_ratios(    i, value, result, floor_met, file) {
  file = out "/ratios.csv"
  printf "\n%-66s %8s %8s %5s%s\n", "measure", "ratio", "target", "met", (short ? "   floor" : "")
  print "key,measure,ratio,relation,target,met" >file
  for (i = 1; i <= n_targets; i++) {
    value = ratio_of(target[i, 3], target[i, 4], target[i, 5])
    if (value == "-") continue
    result = met(value, target[i, 6], target[i, 7])
    printf "%-66s %8s %8s %5s", target[i, 2], short_number(value),
      (target[i, 7] == "-" ? "-" : target[i, 6] " " target[i, 7]), result
    printf "%s,\"%s\",%s,%s,%s,%s\n", target[i, 1], target[i, 2], short_number(value), target[i, 6],
      target[i, 7], result >file
    floor_met = met(value, target[i, 6], target[i, 8])
    if (short) printf " %7s%s", target[i, 8], (floor_met == "no" ? "  UNDER ITS FLOOR" : "")
    printf "\n"
    if (floor_met == "no") failed++
  }
}

END {
  print_variants()
  print_ratios()
  if (short && failed) exit 3
}
