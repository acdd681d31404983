// Draws the main window of a Qt program as SVG: preloaded into one, it waits until the file
// $EBPFDUMP_DRAWING.ask appears, has the window paint itself with an engine that writes what is
// painted (text as text, areas as areas) into $EBPFDUMP_DRAWING, and removes the file. The titles of
// the windows that are open go into $EBPFDUMP_DRAWING.windows, so that a dialog does not go unseen.
#include <QApplication>
#include <QFile>
#include <QMainWindow>
#include <QMap>
#include <QPaintEngine>
#include <QPainter>
#include <QPainterPath>
#include <QTextStream>
#include <QTimer>
#include <QWidget>
#include <cstdlib>

namespace {

QString number(qreal v) { return QString::number(qRound(v * 10) / 10.0); }

class Engine : public QPaintEngine {
public:
	explicit Engine(QTextStream &out)
		: QPaintEngine(PaintEngineFeatures(AllFeatures & ~PatternBrush & ~PerspectiveTransform & ~ConicalGradientFill & ~PorterDuff)), out(out) {}

	bool begin(QPaintDevice *) override { return true; }
	bool end() override { return true; }
	Type type() const override { return User; }

	void updateState(const QPaintEngineState &s) override {
		const DirtyFlags dirty = s.state();
		if (dirty & DirtyTransform) transform = s.transform();
		if (dirty & DirtyPen) pen = s.pen();
		if (dirty & DirtyBrush) brush = s.brush();
		if (dirty & DirtyOpacity) opacity = s.opacity();
		if (dirty & DirtyClipEnabled) clipped = s.isClipEnabled();
		if (dirty & DirtyClipPath) clipTo(transform.map(s.clipPath()).boundingRect().toAlignedRect(), s.clipOperation());
		if (dirty & DirtyClipRegion) clipTo(transform.map(s.clipRegion()), s.clipOperation());
	}

	void drawRects(const QRectF *rects, int n) override {
		for (; n--; rects++) {
			QPainterPath p;
			p.addRect(*rects);
			drawPath(p);
		}
	}

	void drawRects(const QRect *rects, int n) override {
		for (; n--; rects++) {
			const QRectF r(*rects);
			drawRects(&r, 1);
		}
	}

	void drawPolygon(const QPointF *points, int n, PolygonDrawMode mode) override {
		QPainterPath p(points[0]);
		for (int i = 1; i < n; i++) p.lineTo(points[i]);
		if (mode == PolylineMode) {
			const QBrush kept = brush;
			brush = Qt::NoBrush;
			drawPath(p);
			brush = kept;
			return;
		}
		p.closeSubpath();
		drawPath(p);
	}

	void drawPath(const QPainterPath &path) override {
		const QString fill = brush.style() == Qt::NoBrush ? QString() : colour("fill", colourOf(brush));
		QString stroke;
		if (pen.style() != Qt::NoPen && pen.color().alpha()) {
			stroke = colour("stroke", pen.color());
			if (pen.widthF() > 1) stroke += " stroke-width=\"" + number(pen.widthF()) + '"';
			if (pen.style() != Qt::SolidLine) stroke += " stroke-dasharray=\"1 2\"";
		}
		if (fill.isEmpty() && stroke.isEmpty()) return;
		// A line goes through the middle of its points.
		const qreal half = stroke.isEmpty() ? 0 : 0.5;
		const QPainterPath p = transform.map(path).translated(half, half);
		put(p.boundingRect().adjusted(-half, -half, half, half),
			"<path d=\"" + steps(p) + (round(p) ? "\" shape-rendering=\"auto\"" : "\"") + (fill.isEmpty() ? " fill=\"none\"" : fill) + stroke + "/>");
	}

	void drawTextItem(const QPointF &at, const QTextItem &item) override {
		const QString all = item.text();
		if (!QFontInfo(item.font()).fixedPitch()) {
			putText(transform.map(at), all.trimmed(), item.width(), item);
			return;
		}
		// Who shows an SVG may make one space of two: what is between them has a place of its own.
		const qreal cell = item.width() / qMax(1, all.size());
		for (int from = 0; from < all.size();) {
			while (from < all.size() && all[from].isSpace()) from++;
			int to = all.indexOf("  ", from);
			if (to < 0) to = all.size();
			const QString part = all.mid(from, to - from).trimmed();
			putText(transform.map(at) + QPointF(from * cell, 0), part, part.size() * cell, item);
			from = to;
		}
	}

	void drawPixmap(const QRectF &to, const QPixmap &pixmap, const QRectF &from) override { drawImage(to, pixmap.toImage(), from, Qt::AutoColor); }

	void drawTiledPixmap(const QRectF &to, const QPixmap &pixmap, const QPointF &) override { drawImage(to, pixmap.toImage(), pixmap.rect(), Qt::AutoColor); }

	// What is given as points becomes areas of one colour: the icons.
	void drawImage(const QRectF &to, const QImage &given, const QRectF &from, Qt::ImageConversionFlags) override {
		const QRectF place = transform.mapRect(to);
		const QImage image = given.copy(from.toRect()).scaled(place.size().toSize(), Qt::IgnoreAspectRatio, Qt::SmoothTransformation).convertToFormat(QImage::Format_ARGB32);
		QMap<QRgb, QString> areas;
		for (int y = 0; y < image.height(); y++)
			for (int x = 0; x < image.width();) {
				const QRgb c = coarse(image.pixel(x, y));
				int end = x;
				while (end < image.width() && coarse(image.pixel(end, y)) == c) end++;
				if (qAlpha(c)) areas[c] += QString("M%1 %2h%3v1h-%3z").arg(number(place.x() + x), number(place.y() + y)).arg(end - x);
				x = end;
			}
		for (auto i = areas.constBegin(); i != areas.constEnd(); ++i)
			put(place, "<path d=\"" + i.value() + '"' + colour("fill", QColor::fromRgba(i.key())) + "/>");
	}

private:
	static QRgb coarse(QRgb c) {
		const auto step = [](int v) { return qMin(255, (v + 8) / 16 * 16); };
		return step(qAlpha(c)) ? qRgba(step(qRed(c)), step(qGreen(c)), step(qBlue(c)), step(qAlpha(c))) : 0;
	}

	static QColor colourOf(const QBrush &b) {
		if (!b.gradient() || b.gradient()->stops().isEmpty()) return b.color();
		return b.gradient()->stops().at(b.gradient()->stops().size() / 2).second;
	}

	QString colour(const char *what, const QColor &c) const {
		QString s = QString(" %1=\"%2\"").arg(what, c.name());
		if (c.alphaF() * opacity < 0.99) s += QString(" %1-opacity=\"%2\"").arg(what, QString::number(c.alphaF() * opacity, 'g', 2));
		return s;
	}

	static bool round(const QPainterPath &p) {
		for (int i = 0; i < p.elementCount(); i++)
			if (p.elementAt(i).isCurveTo()) return true;
		return false;
	}

	static QString steps(const QPainterPath &p) {
		QString d;
		QPointF start, last;
		for (int i = 0; i < p.elementCount(); i++) {
			const auto e = p.elementAt(i);
			const QString at = number(e.x) + ' ' + number(e.y);
			switch (e.type) {
			case QPainterPath::MoveToElement: d += 'M' + at; break;
			case QPainterPath::LineToElement:
				if (e.y == last.y()) d += 'H' + number(e.x);
				else if (e.x == last.x()) d += 'V' + number(e.y);
				else d += 'L' + at;
				break;
			case QPainterPath::CurveToElement: d += 'C' + at; break;
			case QPainterPath::CurveToDataElement: d += ' ' + at; break;
			}
			last = e;
		}
		return d;
	}

	void clipTo(const QRegion &r, Qt::ClipOperation operation) {
		clip = operation == Qt::IntersectClip && clipped ? clip & r : r;
		clipped = operation != Qt::NoClip;
	}

	void putText(const QPointF &p, const QString &text, qreal width, const QTextItem &item) {
		if (text.isEmpty()) return;
		const QFont font = item.font();
		const QFontInfo info(font);
		QString x = "<text x=\"" + number(p.x()) + "\" y=\"" + number(p.y()) + "\" textLength=\"" + number(width) + '"';
		if (info.fixedPitch()) x += " class=\"m\"";
		if (font.bold()) x += " font-weight=\"bold\"";
		if (font.italic()) x += " font-style=\"italic\"";
		if (font.underline()) x += " text-decoration=\"underline\"";
		if (info.pixelSize() != 13) x += " font-size=\"" + number(info.pixelSize()) + '"';
		if (pen.color() != QColor(Qt::black) || opacity < 1) x += colour("fill", pen.color());
		put(QRectF(p.x(), p.y() - item.ascent(), width, item.ascent() + item.descent()),
			x + '>' + text.toHtmlEscaped() + "</text>");
	}

	// put writes what covers an area, within what may be seen of it.
	void put(const QRectF &area, const QString &element) {
		QRegion seen = systemClip().isEmpty() ? QRegion(0, 0, 10000, 10000) : systemClip();
		if (clipped) seen &= clip;
		const QRect wide = area.adjusted(-0.1, -0.1, 0.1, 0.1).toAlignedRect();
		const QRegion shown = seen & wide;
		if (shown.isEmpty()) return;
		if (shown == QRegion(wide) || (seen.rectCount() == 1 && QRectF(seen.boundingRect()).adjusted(-1, -1, 1, 1).contains(area))) {
			out << element << '\n';
			return;
		}
		QString key;
		for (const QRect &r : seen) key += QString("M%1 %2h%3v%4h-%3z").arg(r.x()).arg(r.y()).arg(r.width()).arg(r.height());
		if (!clips.contains(key)) {
			const int id = clips.size();
			clips[key] = id;
			out << "<clipPath id=\"c" << id << "\"><path d=\"" << key << "\"/></clipPath>\n";
		}
		out << "<g clip-path=\"url(#c" << clips[key] << ")\">" << element << "</g>\n";
	}

	QTextStream &out;
	QTransform transform;
	QPen pen;
	QBrush brush;
	qreal opacity = 1;
	bool clipped = false;
	QRegion clip;
	QMap<QString, int> clips;
};

class Sheet : public QPaintDevice {
public:
	Sheet(QTextStream &out, QSize size) : engine(out), size(size) {}
	QPaintEngine *paintEngine() const override { return &engine; }

protected:
	int metric(PaintDeviceMetric m) const override {
		switch (m) {
		case PdmWidth: return size.width();
		case PdmHeight: return size.height();
		case PdmDpiX: case PdmDpiY: case PdmPhysicalDpiX: case PdmPhysicalDpiY: return 96;
		case PdmDevicePixelRatio: return 1;
		case PdmDepth: return 32;
		default: return QPaintDevice::metric(m);
		}
	}

private:
	mutable Engine engine;
	QSize size;
};

void draw(QWidget *window, const QString &name) {
	QFile file(name);
	if (!file.open(QIODevice::WriteOnly | QIODevice::Truncate)) return;
	QTextStream out(&file);
#if QT_VERSION < QT_VERSION_CHECK(6, 0, 0)
	out.setCodec("UTF-8"); // later there is no other
#endif
	const QString w = QString::number(window->width()), h = QString::number(window->height());
	out << "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 " << w << ' ' << h << "\" width=\"" << w << "\" height=\"" << h
		<< "\" font-family=\"DejaVu Sans, Verdana, sans-serif\" font-size=\"13\">\n"
		<< "<style>.m { font-family: DejaVu Sans Mono, ui-monospace, Menlo, Consolas, monospace } path { shape-rendering: crispEdges }</style>\n";
	Sheet sheet(out, window->size());
	QPainter painter(&sheet);
	window->render(&painter);
	painter.end();
	out << "</svg>\n";
}

void answer(const QString &name) {
	if (!QFile::exists(name + ".ask")) return;
	QFile titles(name + ".windows");
	if (!titles.open(QIODevice::WriteOnly | QIODevice::Truncate)) return;
	QTextStream list(&titles);
	for (QWidget *w : QApplication::topLevelWidgets()) {
		if (!w->isVisible() || w->windowType() == Qt::ToolTip) continue;
		list << w->metaObject()->className() << '\t' << w->windowTitle() << '\n';
		if (qobject_cast<QMainWindow *>(w)) draw(w, name);
	}
	list.flush();
	QFile::remove(name + ".ask");
}

void start() {
	const QString name = qEnvironmentVariable("EBPFDUMP_DRAWING");
	if (name.isEmpty()) return;
	qunsetenv("LD_PRELOAD"); // what the program starts is not to be drawn
	auto *timer = new QTimer(QCoreApplication::instance());
	QObject::connect(timer, &QTimer::timeout, [name] { answer(name); });
	timer->start(100);
}

} // namespace

Q_COREAPP_STARTUP_FUNCTION(start)
