# Three charts from variants.csv: gnuplot -e "in='variants.csv'; out='DIRECTORY'" charts.gp
# A chart whose figures were not measured is left out.
set terminal svg size 760,360 font 'sans-serif,12' background rgb 'white'
set style fill solid 0.9 noborder
set boxwidth 0.6
set grid ytics lc rgb '#dddddd'
set border 3 lc rgb '#666666'
set tics nomirror out
set bmargin 4
unset key

# figure(VARIANT, COLUMN): what awk finds in the file, or an empty text.
figure(variant, column) = system(sprintf("awk -F, '$1 == \"%s\" { printf \"%%s\", $%d }' %s", \
    variant, column, in))
# has(NAMES, COLUMN): all of them were measured.
has(names, column) = (sum [i = 1 : words(names)] (strlen(figure(word(names, i), column)) == 0)) == 0

names = 'fd_pass acquire connect_bouncer_unix connect_bouncer connect_trust connect_scram'
if (has(names, 3)) {
  array value[words(names)]
  do for [i = 1 : words(names)] { value[i] = real(figure(word(names, i), 3)) }
  set output out.'/acquire.svg'
  set title 'Getting a connection and giving it back (PgBouncer: its login only), median, us'
  set logscale y
  set yrange [5 : *]
  set xtics ('bare fd pass' 1, 'the pool' 2, "PgBouncer,\nUnix socket" 3, \
      "PgBouncer,\nTCP" 4, "connect,\ntrust" 5, "connect,\nSCRAM" 6)
  plot [0.4 : 6.6] value using 1:2:($1 == 2 ? 0x2b6cb0 : 0x999999) with boxes lc rgb variable, \
    value using 1:2:(sprintf('%.0f', $2)) with labels offset 0,0.6
  unset logscale y
}

set yrange [0 : *]
names = 'short_nothing short_pool short_bouncer short_fdw'
if (has(names, 5)) {
  array rate[words(names)]
  do for [i = 1 : words(names)] { rate[i] = real(figure(word(names, i), 5)) }
  set output out.'/short_sessions.svg'
  set title 'Short sessions: connect, read one row of a datanode, disconnect; per second'
  set xtics ("SELECT 1,\nno datanode" 1, 'pooler.query' 2, "postgres\\_fdw\nover PgBouncer" 3, \
      "postgres\\_fdw" 4)
  plot [0.4 : 4.6] rate using 1:2:($1 == 2 ? 0x2b6cb0 : 0x999999) with boxes lc rgb variable, \
    rate using 1:2:(sprintf('%.0f', $2)) with labels offset 0,0.6
}

sessions = '1 8 32'
has_statements(s) = has('statements_direct_'.s.' statements_lent_'.s.' statements_bouncer_'.s, 5)
if (has_statements('1') && has_statements('8') && has_statements('32')) {
  array direct[3]
  array lent[3]
  array bouncer[3]
  do for [i = 1 : 3] {
    direct[i] = real(figure('statements_direct_'.word(sessions, i), 5))
    lent[i] = real(figure('statements_lent_'.word(sessions, i), 5))
    bouncer[i] = real(figure('statements_bouncer_'.word(sessions, i), 5))
  }
  set output out.'/statements.svg'
  set title 'Statements per second on a connection: reads by primary key'
  set key top left
  set boxwidth 0.25
  set xtics ('1 session' 1, '8 sessions' 2, '32 sessions' 3)
  plot [0.4 : 3.6] direct using ($1 - 0.27):2 with boxes lc rgb '#999999' title 'direct', \
    lent using 1:2 with boxes lc rgb '#2b6cb0' title 'lent by the pool', \
    bouncer using ($1 + 0.27):2 with boxes lc rgb '#d69e2e' title 'PgBouncer'
}
